//! Asking the daemon.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Exit, Said};
use crate::api::{Answer, Request};
use crate::run_dir::CONTROL_SOCKET;

/// How long an answer may take. An apply with a restart of the datapath is given 20 s by the daemon.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// The longest answer: 262,144 peers.
const ANSWER_MAX: u64 = 256 << 20;

/// Asks; an `Err` is what to say when there is no answer.
pub(super) fn ask(run_dir: &Path, request: Request, json: bool) -> Result<Answer, Said> {
    let answer = answer(run_dir, request, json)?;
    if let Answer::Refused(refusal) = answer {
        return Err(Said::refused(json, &refusal));
    }
    Ok(answer)
}

/// As [`ask`], but a refusal is an answer.
pub(super) fn answer(run_dir: &Path, request: Request, json: bool) -> Result<Answer, Said> {
    let path = run_dir.join(CONTROL_SOCKET);
    exchange(&path, request).map_err(|error| unreachable(&path, &error, json))
}

/// An answer to another question than was asked: the daemon is of another release.
pub(super) fn unexpected() -> Said {
    Said::failed("bulkheadd answered another question; are both of the same release?")
}

fn exchange(path: &Path, request: Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
    }
    Ok(serde_json::from_str(&answer)?)
}

fn unreachable(path: &Path, error: &io::Error, json: bool) -> Said {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut, WouldBlock};
    let kind = error.kind();
    let advice = if matches!(kind, NotFound | ConnectionRefused) {
        "it does not run, or with another --run-dir; see: systemctl status bulkheadd"
    } else if kind == PermissionDenied {
        "only root may ask it; use sudo"
    } else {
        "see its log: journalctl -u bulkheadd"
    };
    let path = path.display();
    let message = if matches!(kind, WouldBlock | TimedOut) {
        // It has the request: a disk that is slow, say, holds up the answer to a change and not the change.
        let seconds = ANSWER_TIMEOUT.as_secs();
        format!(
            "bulkheadd did not answer at {path} within {seconds} s; what it was asked for may be done, or still \
             under way: see bulkhead status and bulkhead history"
        )
    } else {
        format!("bulkheadd cannot be reached at {path}: {error}; {advice}")
    };
    if json {
        let value = serde_json::json!({ "unreachable": { "message": message } });
        return Said { out: super::as_json(&value), err: String::new(), exit: Exit::Unreachable };
    }
    let err = format!("bulkhead: {message}\n");
    Said { out: String::new(), err, exit: Exit::Unreachable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_in_time_does_not_say_that_nothing_was_done() {
        let path = Path::new("/run/bulkhead/control.sock");
        let said = |kind: io::ErrorKind| unreachable(path, &kind.into(), false);
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            let Said { err, exit, .. } = said(kind);
            assert_eq!(exit, Exit::Unreachable);
            assert!(
                err.contains("did not answer at /run/bulkhead/control.sock within 40 s"),
                "{err}"
            );
            assert!(err.contains("may be done") && !err.contains("cannot be reached"), "{err}");
        }
        let err = said(io::ErrorKind::NotFound).err;
        assert!(err.contains("cannot be reached") && err.contains("does not run"), "{err}");
    }
}
