//! Certificates for tests, made by `openssl` and valid for two days.

use std::{fs, io, path::Path, process::Command};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Makes an authority of its own: `NAME.pem` and `NAME.key` in a folder. Blocks.
///
/// # Panics
///
/// As all of these, where `openssl` cannot be run, or refuses.
pub fn authority(folder: &Path, name: &str) {
    openssl(folder, &format!("req -x509 {NEW_KEY} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"));
}

/// Makes what an authority in the folder signs for a server at 127.0.0.1: `NAME.pem` and `NAME.key`. Blocks.
///
/// # Panics
///
/// As [`authority`].
pub fn for_server(folder: &Path, authority: &str, name: &str) {
    signed(folder, authority, name, name, "subjectAltName=IP:127.0.0.1");
}

/// Makes what an authority in the folder signs for a client of this common name: `NAME.pem` and `NAME.key`. Blocks.
///
/// # Panics
///
/// As [`authority`].
pub fn for_client(folder: &Path, authority: &str, name: &str, common: &str) {
    signed(folder, authority, name, common, "extendedKeyUsage=clientAuth");
}

fn signed(folder: &Path, authority: &str, name: &str, common: &str, extension: &str) {
    let extensions = format!("{name}.ext");
    fs::write(folder.join(&extensions), format!("{extension}\n")).expect("the folder can be written to");
    openssl(folder, &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={common}"));
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -out {name}.pem -days 2 \
             -extfile {extensions}"
        ),
    );
}

/// Reads what a server shows: its certificate and its key.
pub(super) fn server(certificate: &Path, key: &Path) -> io::Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(|found| found.collect::<Result<_, _>>())
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let provider = rustls::crypto::ring::default_provider().into();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|versions| versions.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)
}

fn openssl(folder: &Path, arguments: &str) {
    let words = arguments.split_whitespace();
    let done = Command::new("openssl").args(words).current_dir(folder).output().expect("openssl can be run");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
