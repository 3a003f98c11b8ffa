//! From named identities and rules to the flat table, and questions about them.
//!
//! ```text
//!             resolve            classes               lower
//!   Config ──────────▶ endpoints ───────▶ labels ──────────────────▶ Draft ──▶ bytes (table)
//!     │                 and rules          endpoints that no rule      cells of disjoint runs,
//!     │                 without names      can tell apart share one    each with its rule
//!     │
//!     └──▶ oracle: the same questions, answered from the Config by looking at every rule
//! ```
//!
//! INVARIANT: the table allows a flow exactly if some rule of the configuration does, and names
//! the first such rule of the file. What no rule names has label 0, which may nothing. The same
//! configuration gives the same draft, byte for byte, on every machine.
//!
//! Every answer of [`Policy`] comes from the validated table, as the datapath reads it, and is
//! held against the oracle before it is given.
#![forbid(unsafe_code)]

mod classes;
mod compile;
mod expectation;
mod explain;
pub mod limits;
mod lower;
mod names;
pub mod oracle;
mod policy;
mod resolve;
mod verdict;

pub use compile::{CompileError, CompileErrors, Compiled, PeerMap, compile};
pub use expectation::{Failure, TestOutcome, run_tests};
pub use explain::{Explanation, NearRule, Party, RuleRef, explain};
pub use names::{EndpointKind, EndpointName, Names, RuleName};
pub use policy::{Policy, QuestionError};
pub use verdict::{Denied, Verdict};
