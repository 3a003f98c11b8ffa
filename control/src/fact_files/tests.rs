use super::*;
use crate::knowledge::tests::{config, said};

#[test]
fn facts_are_read_as_they_were_written_and_a_change_replaces_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (files, mut knowledge, problems) =
        FactFiles::open(folder.path().join("facts"), Timestamp::UNIX_EPOCH).unwrap();
    assert!(problems.is_empty());
    let config = config(1, 2, "text");
    let now = Timestamp::UNIX_EPOCH;
    knowledge.set(said(&config, "anna", &[("managed", true.into())], Some("1h"), now));
    knowledge.set(said(&config, "bert", &[("risk", 3.into())], None, now));
    files.write(knowledge.take_unkept()).unwrap();
    knowledge.kept();
    let read = || FactFiles::open(folder.path().join("facts"), now).unwrap();
    assert_eq!(read().1.facts(&config, now), knowledge.facts(&config, now));
    let path = |device| file(&folder.path().join("facts"), drawer_of(device));
    let before = fs::read(path("bert")).unwrap();
    fs::write(path("bert"), b"to see whether it is written").unwrap();
    knowledge.clear("anna", &[]);
    files.write(knowledge.take_unkept()).unwrap();
    assert_eq!(fs::read(path("bert")).unwrap(), b"to see whether it is written");
    fs::write(path("bert"), before).unwrap();
    assert_eq!(read().1.facts(&config, now).devices.len(), 1);
}

/// Every beginning of a file, and the file with any one bit turned around.
#[test]
fn a_file_that_is_not_what_was_written_is_no_source_of_facts() {
    let config = config(1, 2, "text");
    let now = Timestamp::UNIX_EPOCH;
    let folder = tempfile::tempdir().unwrap();
    let (files, mut knowledge, _) = FactFiles::open(folder.path().to_owned(), now).unwrap();
    knowledge.set(said(&config, "anna", &[("managed", true.into())], None, now));
    files.write(knowledge.take_unkept()).unwrap();
    let (drawer, path) = (drawer_of("anna"), file(folder.path(), drawer_of("anna")));
    let whole = fs::read(&path).unwrap();
    assert_eq!(parse(&whole, drawer).unwrap().len(), 1);
    assert!(parse(&whole, drawer.wrapping_add(1)).is_none(), "another drawer's");
    for len in 0..whole.len() {
        assert!(parse(&whole[..len], drawer).is_none(), "{len} bytes");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut turned = whole.clone();
            turned[at] ^= 1 << bit;
            assert!(parse(&turned, drawer).is_none(), "bit {bit} of byte {at}");
        }
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (_, knowledge, problems) = FactFiles::open(folder.path().to_owned(), now).unwrap();
    assert_eq!((knowledge, problems.len()), (Knowledge::default(), 1));
    let (_, _, problems) = FactFiles::open(folder.path().to_owned(), now).unwrap();
    assert!(problems.is_empty(), "set aside");
    assert!(path.with_extension("torn").exists());
}
