//! From named identities and rules to the flat table, and questions about them.
//!
//! ```text
//!           endpoint            resolve           classes              lower
//!   Config ──────────▶ pieces of ──────▶ rules ──────────▶ labels ──────────────▶ Draft ──▶ table
//!     │                 the address      without           who cannot  disjoint runs,
//!     │                 space            names             be told     each with its rule,
//!     │                                                    apart       less what is denied
//!     └──▶ oracle: the same questions, answered from the Config by looking at every rule
//! ```
//!
//! INVARIANT: the table allows a flow exactly if some rule of the configuration that is in force
//! allows it and none denies it, and names the first rule of the file that allows it. What no rule
//! names has label 0, which may nothing. The same configuration gives the same draft, byte for
//! byte, on every machine.
//!
//! Every answer of [`Policy`] comes from the validated table, as the datapath reads it, and is
//! held against the oracle before it is given.
#![forbid(unsafe_code)]

mod classes;
mod compile;
mod endpoint;
mod expectation;
mod explain;
pub mod limits;
mod lower;
mod names;
pub mod oracle;
mod policy;
mod resolve;
mod verdict;

pub use compile::{CompileError, CompileErrors, Compiled, PeerMap, compile, compile_reading};
pub use expectation::{Failure, TestOutcome, run_tests};
pub use explain::{Explanation, NearRule, Party, RuleRef, explain};
pub use names::{EndpointKind, EndpointName, Names, RuleName};
pub use policy::{Policy, QuestionError};
pub use resolve::Reading;
pub use verdict::{Denied, Verdict};
