use super::*;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use crate::intent::Intent;

/// Far more than anything takes on a machine under load.
const LONG: Patience = Patience { idle: Duration::from_secs(30), whole: Duration::from_secs(30) };

fn nothing() -> Option<Figures> {
    let mut intent = Intent::empty();
    intent.listeners[0].name = "wg0".to_owned();
    intent.listeners[0].udp_port = 7;
    Some(Figures { intent: Arc::new(intent), peers: vec![] })
}

/// Attends to what `say` says; returns what it was answered, and how the attention ended.
fn talk(
    patience: Patience,
    say: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> (Vec<u8>, io::Result<()>) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let client = thread::spawn(move || {
        far.set_read_timeout(Some(LONG.idle)).unwrap();
        say(&mut far);
        let mut answer = vec![];
        // Whoever was closed with words unread is reset.
        let _ = far.read_to_end(&mut answer);
        answer
    });
    let ended = attend(&near, "wg0", patience, Clock::start(), nothing);
    drop(near);
    (client.join().unwrap(), ended)
}

#[test]
fn one_connection_carries_several_questions() {
    let (answer, ended) = talk(LONG, |far| {
        far.write_all(b"get=1\n\nset=1\nlisten_port=1\n\nwhat\n\nget=1\n\n").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
    });
    ended.unwrap();
    let want = "listen_port=7\nerrno=0\n\nerrno=-30\n\nerrno=-22\n\nlisten_port=7\nerrno=0\n\n";
    assert_eq!(String::from_utf8(answer).unwrap(), want);
}

#[test]
fn whoever_says_nothing_is_told_nothing() {
    let (answer, ended) = talk(LONG, |far| far.shutdown(std::net::Shutdown::Write).unwrap());
    ended.unwrap();
    assert_eq!(answer, b"");
}

#[test]
fn an_endless_request_is_read_to_its_bound_and_no_further() {
    let (_, ended) = talk(LONG, |far| {
        let line = vec![b'x'; 1 << 16];
        // Ends when the other side does: an error is what is waited for.
        for _ in 0..64 {
            if far.write_all(&line).is_err() {
                return;
            }
        }
        panic!("4 MiB were taken");
    });
    ended.unwrap();
}

#[test]
fn a_half_open_client_is_given_up() {
    let short = Patience { idle: Duration::from_millis(50), ..LONG };
    let (answer, ended) = talk(short, |far| far.write_all(b"get=").unwrap());
    assert!(matches!(
        ended.unwrap_err().kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ));
    assert_eq!(answer, b"");
}

#[test]
fn dripping_does_not_stretch_the_time_of_a_client() {
    let short = Patience { whole: Duration::from_millis(100), ..LONG };
    let (_, ended) = talk(short, |far| while far.write_all(b"x").is_ok() {});
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let short = Patience { idle: Duration::from_millis(50), ..LONG };
    near.set_nonblocking(false).unwrap();
    let asker = thread::spawn(move || {
        // As many questions as their answers fill the socket's buffer, and none is read.
        while far.write_all(&b"get=1\n\n".repeat(1_000)).is_ok() {}
        far
    });
    let ended = attend(&near, "wg0", short, Clock::start(), nothing);
    drop(near);
    assert!(ended.is_err());
    drop(asker.join().unwrap());
}

#[test]
fn a_page_never_grows_and_passes_everything_on() {
    let mut passed = vec![];
    let mut page = Page::new(&mut passed);
    let (room, large) = (page.buffer.capacity(), vec![7; 3 * PAGE + 5]);
    for piece in [&large[..], b"a", &large[..PAGE], &large[..PAGE - 1], b"b", b"cd"] {
        page.write_all(piece).unwrap();
        assert_eq!(page.buffer.capacity(), room);
    }
    page.flush().unwrap();
    drop(page);
    let want = [&large[..], b"a", &large[..PAGE], &large[..PAGE - 1], b"bcd"].concat();
    assert!(passed == want);
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("wireguard");
    let (file, listener) = listen(&folder, "wg0").unwrap();
    let path = folder.join("wg0.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let refused = listen(&folder, "wg0").unwrap_err();
    assert!(matches!(refused, SocketError::Taken { .. }), "{refused}");
    assert!(UnixStream::connect(&path).is_ok(), "and it still answers");
    // Its process dies without cleaning up.
    drop(listener);
    std::mem::forget(file);
    assert!(UnixStream::connect(&path).is_err());
    let (second, _alive) = listen(&folder, "wg0").unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    // Another process's socket in our place is not ours to remove.
    fs::remove_file(&path).unwrap();
    let _other = StdListener::bind(&path).unwrap();
    drop(second);
    assert!(UnixStream::connect(&path).is_ok());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(listen(&folder, "wg0").unwrap_err(), SocketError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
