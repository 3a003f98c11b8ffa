//! What puts an intent in force, and the work of making it, which may be done elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_link::Peer;
use bulkhead_policy_compiler::Facts;
use bulkhead_wg::PublicKey;

use crate::aligned::Aligned;
use crate::api::Refusal;
use crate::intent::Intent;
use crate::publish::{Blob, Made, SharedCompiler};

/// An intent with the peers and the table that put it in force.
#[derive(Debug)]
pub struct Plan {
    pub(super) intent: Arc<Intent>,
    pub(super) generation: u64,
    /// The datapath whose indices of peers these are.
    pub(super) epoch: u64,
    pub(super) blob: Blob,
    /// All devices with their indices.
    pub(super) peers: BTreeMap<PublicKey, Peer>,
    /// The labels of the table; taken when it is sent.
    pub(super) aligned: Option<Aligned>,
    /// The knowledge that it was compiled with.
    pub(super) version: u64,
}

impl Plan {
    /// What it puts in force.
    #[must_use]
    pub fn intent(&self) -> &Arc<Intent> {
        &self.intent
    }
}

/// A plan that was made elsewhere, and whether it may be put in force.
#[derive(Debug)]
pub enum Checked {
    /// As long as nothing else happens.
    Current(Box<Plan>),
    /// Not any more; this makes it again.
    Outdated(Box<Job>),
}

/// Everything that a plan is made from. [`Self::compile`] takes up to seconds for the largest
/// policies, and needs nothing of the state.
#[derive(Debug)]
pub struct Job {
    pub(super) intent: Arc<Intent>,
    pub(super) compiler: SharedCompiler,
    pub(super) generation: u64,
    pub(super) epoch: u64,
    pub(super) peers: BTreeMap<PublicKey, Peer>,
    pub(super) facts: Facts,
    pub(super) version: u64,
}

impl Job {
    /// Which datapath it is for.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes the table.
    ///
    /// # Errors
    ///
    /// [`crate::api::RefusalKind::Invalid`] if the policy does not fit a table.
    pub fn compile(self) -> Result<Plan, Refusal> {
        let Self { intent, compiler, generation, epoch, peers, facts, version } = self;
        let indices = peers.iter().map(|(key, peer)| (*key, peer.index)).collect();
        let Made { blob, labels } = intent.policy.table(&compiler, &indices, generation, &facts)?;
        let config = Arc::clone(&intent.config);
        let aligned = Some(Aligned::new(config, labels, facts, generation));
        Ok(Plan { intent, generation, epoch, blob, peers, aligned, version })
    }
}
