//! From the policy to the memfd that the datapath maps.
//!
//! ```text
//!   Config ── compile ──▶ Draft ── emit ──▶ bytes ── Table::new ──▶ Blob ── seal ──▶ memfd
//! ```
//!
//! INVARIANT: a [`Blob`] has passed the very validation that the datapath will do, so a refusal over
//! there is a defect, not a bad policy. The memfd cannot be changed by anyone, us included.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use bulkhead_config::Config;
use bulkhead_policy_compiler::{
    CompileErrors, Compiled, Compiler, Facts, Labels, PeerMap, Reading, compile_with, run_tests,
};
use bulkhead_table::{PeerIndex, Table};
use bulkhead_wg::PublicKey;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::api::{Diagnostic, Refusal, RefusalKind};

/// What makes a table. The state machine is tested with another than [`ConfigPolicy`].
pub trait Policy: fmt::Debug + Send + Sync {
    /// The table of one generation, by what is known; `peers` knows every device. `compiler` may know
    /// a part of the work from the table before.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Invalid`] if the policy does not fit a table.
    fn table(
        &self,
        compiler: &SharedCompiler,
        peers: &BTreeMap<PublicKey, u32>,
        generation: u64,
        facts: &Facts,
    ) -> Result<Made, Refusal>;
}

/// The compiler that makes one table after another, and so need not sort the same devices again.
#[derive(Clone, Debug, Default)]
pub struct SharedCompiler(Arc<Mutex<Compiler>>);

impl SharedCompiler {
    /// While a table is made for facts, another one does not wait, and is made from nothing.
    fn compile(
        &self,
        config: &Config,
        peers: &PeerMap,
        generation: u64,
        facts: &Facts,
    ) -> Result<Compiled, CompileErrors> {
        match self.0.try_lock() {
            Ok(mut compiler) => {
                compiler.compile(config, peers, generation, Reading::Enforced, facts)
            }
            Err(_) => compile_with(config, peers, generation, Reading::Enforced, facts),
        }
    }
}

/// What a policy makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The table.
    pub blob: Blob,
    /// Which of its labels an endpoint gets when conditions come and go.
    pub labels: Labels,
}

/// A validated table.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// What the datapath maps.
    pub bytes: Arc<[u8]>,
    /// What identifies the content.
    pub digest: [u8; 16],
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.bytes.len())
    }
}

/// The policy of a configuration file.
#[derive(Debug)]
pub struct ConfigPolicy {
    config: Arc<Config>,
}

impl ConfigPolicy {
    /// Keeps the configuration for as many tables as are wanted.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config }
    }
}

impl Policy for ConfigPolicy {
    fn table(
        &self,
        compiler: &SharedCompiler,
        peers: &BTreeMap<PublicKey, u32>,
        generation: u64,
        facts: &Facts,
    ) -> Result<Made, Refusal> {
        let invalid = |problem: String| Refusal::new(RefusalKind::Invalid, problem);
        let peers: PeerMap = peers.iter().map(|(key, index)| (key.0, PeerIndex(*index))).collect();
        let compiled = compiler
            .compile(&self.config, &peers, generation, facts)
            .map_err(|errors| invalid(errors.to_string().trim_end().to_owned()))?;
        let bytes: Arc<[u8]> = compiled
            .draft
            .emit()
            .map_err(|error| invalid(format!("the table cannot be written: {error}")))?
            .into();
        let table = Table::new(Arc::new(Arc::clone(&bytes)))
            .map_err(|error| invalid(format!("the compiled table is invalid: {error}")))?;
        Ok(Made { blob: Blob { digest: table.digest(), bytes }, labels: compiled.labels })
    }
}

/// Runs the `[[test]]` entries of a file.
///
/// # Errors
///
/// [`RefusalKind::TestFailed`] with every answer that is not as wanted; [`RefusalKind::Invalid`] if
/// the policy does not compile.
pub fn check_tests(config: &Config) -> Result<usize, Refusal> {
    let outcomes = run_tests(config).map_err(|errors| {
        Refusal::new(RefusalKind::Invalid, errors.to_string().trim_end().to_owned())
    })?;
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
    if failed.is_empty() {
        return Ok(outcomes.len());
    }
    let diagnostics = failed
        .iter()
        .map(|outcome| Diagnostic {
            path: config.path.clone(),
            line: outcome.place.line,
            column: outcome.place.column,
            problem: format!("test {:?} failed", outcome.name),
            text: outcome.to_string(),
        })
        .collect();
    let message = format!("{} of {} policy tests failed", failed.len(), outcomes.len());
    Err(Refusal { kind: RefusalKind::TestFailed, message, diagnostics })
}

/// Puts a table into a memfd that nobody can change any more.
///
/// # Errors
///
/// Whatever the system says; usually that it has no memory.
pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("bulkhead-table", flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_sealed_table_can_be_read_and_not_changed() {
        let mut file = File::from(seal(b"table").unwrap());
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "table");
        assert!(file.write(b"x").is_err());
        assert!(file.set_len(1).is_err() && file.set_len(100).is_err());
        let refused = fcntl_add_seals(&file, SealFlags::WRITE);
        assert!(refused.is_err(), "the set of seals is final");
    }
}
