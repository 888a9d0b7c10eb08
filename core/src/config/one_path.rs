//! The one spelling of a path: two of them that lead to the same place are to be recognised.

use std::path::{Component, Path, PathBuf};

/// Returns `path` from the root on, without `.` and `..`: the same for `rows`, `./rows` and `other/../rows`.
///
/// Looks at no file, so two links to one folder stay two paths.
pub fn one_path(path: &Path) -> PathBuf {
    // Without a current directory there is nothing that the path could start from: it is taken as it stands.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::CurDir => {}
            // The root has no parent but itself.
            Component::ParentDir => drop(plain.pop()),
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(component),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_one() {
        let one = one_path(Path::new("rows"));
        assert!(one.is_absolute(), "{}", one.display());
        for same in ["./rows", "rows/", "rows/.", "other/../rows", ".//rows"] {
            assert_eq!(one_path(Path::new(same)), one, "{same}");
        }
        assert_eq!(one_path(&std::env::current_dir().unwrap().join("rows")), one);
        assert_eq!(one_path(Path::new("/../a/./b/../c")), Path::new("/a/c"));
        assert_ne!(one_path(Path::new("rows2")), one);
    }
}
