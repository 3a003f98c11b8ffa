//! One file over HTTP/1.1 and its hash. The file is made from a seed, so both ends know its hash
//! without having met.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::tell;
use crate::wait::Deadline;

/// A reproducible file that does not compress and has no period that a lost or repeated segment
/// could hide in.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// Selects the bytes.
    pub seed: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Content {
    /// Its bytes, from the first.
    pub fn bytes(self) -> impl Read {
        Generator { state: self.seed, word: [0; 8], at: 8 }.take(self.len)
    }

    /// SHA-256 in hexadecimal.
    ///
    /// # Errors
    ///
    /// None in practice: the bytes are computed.
    pub fn sha256(self) -> io::Result<String> {
        let mut hash = Context::new(&SHA256);
        copy(&mut self.bytes(), |part| {
            hash.update(part);
            Ok(())
        })?;
        Ok(hex(hash.finish().as_ref()))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Generator {
    state: u64,
    word: [u8; 8],
    at: usize,
}

impl Read for Generator {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            if self.at == self.word.len() {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.word = (z ^ (z >> 31)).to_le_bytes();
                self.at = 0;
            }
            *byte = self.word.get(self.at).copied().unwrap_or(0);
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

/// Serves the content to every GET, one connection after the other. Never returns but for an error
/// of the listener.
///
/// # Errors
///
/// Of the listener.
pub fn serve(listen: SocketAddr, content: Content) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    tell(&format!("listening at={}", listener.local_addr()?))?;
    loop {
        let (stream, from) = listener.accept()?;
        // A client that breaks off is the client's affair.
        let outcome = answer(stream, content);
        tell(&format!("served from={from} ok={}", outcome.is_ok()))?;
    }
}

fn answer(mut stream: TcpStream, content: Content) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            break;
        }
    }
    if !request.starts_with("GET ") {
        return stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
    }
    let len = content.len;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n")?;
    copy(&mut content.bytes(), |part| stream.write_all(part))?;
    Ok(())
}

/// Downloads from `from` and tells `downloaded status= bytes= sha256= milliseconds=`.
///
/// # Errors
///
/// If it cannot connect within `patience`, the transfer stalls for as long, or the answer is not
/// what its header says.
pub fn get(from: SocketAddr, patience: Duration) -> io::Result<()> {
    let clock = Deadline::after(patience);
    let mut stream = TcpStream::connect_timeout(&from, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET /file HTTP/1.1\r\nhost: {from}\r\nconnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let (status, len) = read_header(&mut reader)?;
    let mut hash = Context::new(&SHA256);
    let bytes = copy(&mut reader, |part| {
        hash.update(part);
        Ok(())
    })?;
    let sha256 = hex(hash.finish().as_ref());
    let took = clock.elapsed().as_millis();
    tell(&format!("downloaded status={status} bytes={bytes} sha256={sha256} milliseconds={took}"))?;
    if bytes != len {
        return Err(io::Error::other(format!("the header promised {len} bytes, {bytes} came")));
    }
    Ok(())
}

/// Status and content length.
fn read_header(reader: &mut impl BufRead) -> io::Result<(u16, u64)> {
    let mut status = None;
    let mut len = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.split_ascii_whitespace().next().and_then(|code| code.parse().ok());
        }
        if let Some(rest) = line.strip_prefix("content-length: ") {
            len = rest.trim_end().parse().ok();
        }
    }
    status.zip(len).ok_or_else(|| io::Error::other("no status or no content-length in the answer"))
}

/// Reads to the end and hands on every part; returns the count of bytes.
fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = [0; 32_768];
    let mut total: u64 = 0;
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(total);
        }
        to(buffer.get(..len).unwrap_or_default())?;
        total = total.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_reproducible_and_depends_on_seed_and_length() {
        let hash = |seed, len| Content { seed, len }.sha256().unwrap();
        assert_eq!(hash(1, 1000), hash(1, 1000));
        assert_ne!(hash(1, 1000), hash(2, 1000));
        assert_ne!(hash(1, 1000), hash(1, 1001));
        // FIPS 180-4: the hash of nothing.
        assert!(hash(1, 0).starts_with("e3b0c44298fc1c14"));
    }

    #[test]
    fn content_has_the_length_that_was_asked_for() {
        for len in [0, 1, 7, 8, 9, 40_000] {
            let mut bytes = Vec::new();
            Content { seed: 3, len }.bytes().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, len);
        }
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        let mut answer = io::Cursor::new(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
        assert!(read_header(&mut answer).is_err());
        let mut answer = io::Cursor::new(b"HTTP/1.1 404 No\r\ncontent-length: 12\r\n\r\n".to_vec());
        assert_eq!(read_header(&mut answer).unwrap(), (404, 12));
    }
}
