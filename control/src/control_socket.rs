//! One connection to `control.sock`: lines in, lines out.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::api::{Answer, REQUEST_MAX, Refusal, RefusalKind, Request};

/// How long a connection may be silent. Whoever connects has a question.
const IDLE: Duration = Duration::from_secs(30);

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// User id of whoever asks, as the kernel says.
    pub by: u32,
    /// Where to answer.
    pub answer: oneshot::Sender<Answer>,
}

/// Serves one connection until it closes, falls silent, or says something that is too long.
///
/// # Errors
///
/// Whatever the system says; only this connection is affected.
pub async fn serve(stream: UnixStream, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let by = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = vec![];
        let limit = u64::try_from(REQUEST_MAX).unwrap_or(u64::MAX);
        let mut limited = (&mut reader).take(limit);
        let Ok(read) = timeout(IDLE, limited.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        if read? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer = if whole || line.len() < REQUEST_MAX {
            answer(&line, by, &requests).await
        } else {
            bad(format!("a request has at most {REQUEST_MAX} bytes"))
        };
        let Ok(mut text) = serde_json::to_vec(&answer) else { return Ok(()) };
        text.push(b'\n');
        match timeout(IDLE, writer.write_all(&text)).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
        // What follows an overlong line is its rest, not a request.
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], by: u32, requests: &mpsc::Sender<Asked>) -> Answer {
    let request = match serde_json::from_slice::<Request>(line) {
        Ok(request) => request,
        Err(error) => return bad(format!("not a request: {error}")),
    };
    let (answer, wait) = oneshot::channel();
    if requests.send(Asked { request, by, answer }).await.is_err() {
        return going();
    }
    wait.await.unwrap_or_else(|_| going())
}

fn bad(message: String) -> Answer {
    Answer::Refused(Refusal::new(RefusalKind::BadRequest, message))
}

fn going() -> Answer {
    Answer::Refused(Refusal::new(RefusalKind::Unavailable, "bulkheadd is going down"))
}
