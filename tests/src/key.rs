//! Keys for the worlds, made by `wg`, so that no code under test makes its own.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{During, Failure};

/// A private key and its public key, both in base64 as `wg` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// For the machine that it identifies.
    pub private: String,
    /// For everybody else.
    pub public: String,
}

impl KeyPair {
    /// A random pair.
    ///
    /// # Errors
    ///
    /// If `wg` (Debian package wireguard-tools) cannot be run.
    pub fn generate() -> Result<Self, Failure> {
        let private = wg("genkey", "")?;
        let public = wg("pubkey", &private)?;
        Ok(Self { private, public })
    }
}

/// A random preshared key in base64.
///
/// # Errors
///
/// As [`KeyPair::generate`].
pub fn preshared_key() -> Result<String, Failure> {
    wg("genpsk", "")
}

fn wg(task: &str, input: &str) -> Result<String, Failure> {
    let what = || format!("running wg {task}");
    let mut child = Command::new("wg")
        .arg(task)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .during(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).during(what)?;
    }
    let output = child.wait_with_output().during(what)?;
    if !output.status.success() {
        return Err(Failure::new(format!("wg {task} ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
