//! What a person decides after an accident: `tidegate adopt`, and the renaming of a sink or a pipeline.

use std::fs;

use tidegate_core::{
    Kind,
    sink::{Owner, Sink},
    spool::SpoolPosition,
};

use super::{Bench, written};

#[tokio::test]
async fn a_folder_whose_record_is_gone_goes_on_where_a_person_says_and_keeps_its_lines() {
    let bench = written().await;
    let owner = owner(&bench);
    let claim = bench.sink().claim(&owner).await.unwrap().unwrap();
    assert_eq!((claim.position.offset, claim.spool), (2, owner.spool));
    fs::remove_file(bench.record()).unwrap();
    assert_eq!(bench.sink().claim(&owner).await.unwrap(), None);

    for _twice_is_once in 0..2 {
        bench.sink().adopt(&owner, claim.position).await.unwrap();
        assert_eq!(bench.sink().claim(&owner).await.unwrap().unwrap().position, claim.position);
    }
    bench.trades(3);
    let mut sink = bench.sink();
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(2));
    bench.write(&mut sink, 2, 5).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(bench.sequence(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_was_written_and_never_counted_is_cut_off_before_the_record_is_another_one() {
    let bench = written().await;
    let in_work = bench.files("trades")[0].clone();
    let mut text = fs::read(&in_work).unwrap();
    text.extend_from_slice(b"{\"ts_event\":\"1970-");
    fs::write(&in_work, text).unwrap();
    let at = bench.sink().claim(&owner(&bench)).await.unwrap().unwrap().position;
    bench.sink().adopt(&owner(&bench), at).await.unwrap();
    assert_eq!(bench.sequence(), [1, 2], "each line can be read");
}

#[tokio::test]
async fn files_that_begin_behind_the_position_are_in_the_way_and_stay() {
    let bench = written().await;
    let before = bench.files("trades");
    let error = bench.sink().adopt(&owner(&bench), SpoolPosition::START).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    let said = error.to_string();
    assert!(said.contains("holds 1 files that begin behind offset 0") && said.contains("move them away"), "{said}");
    assert_eq!((bench.files("trades"), bench.sequence()), (before, vec![1, 2]));
    assert_eq!(bench.sink().claim(&owner(&bench)).await.unwrap().unwrap().position.offset, 2, "nothing has changed");
}

#[tokio::test]
async fn a_sink_and_a_pipeline_that_are_renamed_keep_their_lines_and_their_position() {
    let bench = written().await;
    let old = owner(&bench);
    let sink = Owner { sink: "archive".to_owned(), ..old.clone() };
    let pipeline = Owner { pipeline: "ether".to_owned(), ..sink.clone() };
    for (from, to) in [(&old, &sink), (&sink, &pipeline)] {
        for _twice_is_once in 0..2 {
            bench.sink().rename(from, to).await.unwrap();
            let claim = bench.sink().claim(to).await.unwrap().unwrap();
            assert_eq!((claim.position.offset, bench.sink().claim(from).await.unwrap()), (2, None));
        }
    }
    let folder = bench.directory.path().join("ether");
    assert!(!bench.path().exists() && folder.is_dir());
    let lines = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let lines = lines.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    assert_eq!(lines.map(|path| fs::read_to_string(path).unwrap().lines().count()).sum::<usize>(), 2);
}

fn owner(bench: &Bench) -> Owner {
    bench.log.context(bench.directory.path()).owner
}
