//! A compiled policy to ask.

use std::sync::Arc;

use bulkhead_config::{Config, Flow, InvalidFlow, Origin};
use bulkhead_table::{Denial, EndpointId, LabelId, Service, Table, View};
use bulkhead_wire::Address;
use ipnet::IpNet;

use crate::compile::{CompileError, CompileErrors, compile_with, numbered_peers};
use crate::endpoint::Endpoints;
use crate::{Denied, Facts, Reading, Verdict, oracle};

/// A configuration with its table. Answers come from the table's bytes, as the datapath reads
/// them.
pub struct Policy<'c> {
    pub(crate) config: &'c Config,
    pub(crate) facts: Facts,
    enforced: Bytes,
    /// If there are shadow rules: with them.
    shadowed: Option<Bytes>,
}

impl<'c> Policy<'c> {
    /// Compiles a configuration and validates its table. Peers are numbered by the way; answers do
    /// not depend on that.
    ///
    /// # Errors
    ///
    /// If it does not compile.
    pub fn new(config: &'c Config) -> Result<Self, CompileErrors> {
        Self::with(config, Facts::default())
    }

    /// As [`Self::new`], with what is known.
    ///
    /// # Errors
    ///
    /// If it does not compile.
    pub fn with(config: &'c Config, facts: Facts) -> Result<Self, CompileErrors> {
        let shadows = config.rules.iter().any(|rule| !Reading::Enforced.counts(rule));
        let shadowed = shadows.then(|| Bytes::of(config, Reading::Shadowed, &facts)).transpose()?;
        let enforced = Bytes::of(config, Reading::Enforced, &facts)?;
        Ok(Self { config, facts, enforced, shadowed })
    }

    /// Whether `from` may open the flow.
    ///
    /// # Errors
    ///
    /// [`QuestionError::Disagreement`] if table and oracle give different answers. That is a
    /// defect of the compiler, and no such policy may be put in force.
    pub fn judge(&self, from: &Origin, flow: &Flow) -> Result<Verdict, QuestionError> {
        self.agreed(&self.enforced, Reading::Enforced, from, flow)
    }

    /// Whether `from` might open the flow if the shadow rules were in force; `None` if there are
    /// none.
    ///
    /// # Errors
    ///
    /// As [`Self::judge`].
    pub fn shadow(&self, from: &Origin, flow: &Flow) -> Result<Option<Verdict>, QuestionError> {
        let shadowed = self.shadowed.as_ref();
        shadowed.map(|bytes| self.agreed(bytes, Reading::Shadowed, from, flow)).transpose()
    }

    fn agreed(
        &self,
        bytes: &Bytes,
        reading: Reading,
        from: &Origin,
        flow: &Flow,
    ) -> Result<Verdict, QuestionError> {
        let table = bytes.ask(self.config, from, flow);
        let oracle = oracle::judge(self.config, reading, &self.facts, from, flow);
        if table.as_table() == oracle.as_table() {
            return Ok(oracle);
        }
        let (from, flow) = (from.to_string(), flow.to_string());
        Err(QuestionError::Disagreement { from, flow, table, oracle })
    }
}

/// A table, and what it was made from.
struct Bytes {
    table: Table,
    endpoints: Endpoints,
}

impl Bytes {
    fn of(config: &Config, reading: Reading, facts: &Facts) -> Result<Self, CompileErrors> {
        let compiled = compile_with(config, &numbered_peers(config), 1, reading, facts)?;
        let refused = |reason: String| CompileErrors::one(CompileError::Emit { reason });
        let bytes = compiled.draft.emit().map_err(|error| refused(error.to_string()))?;
        let table = Table::new(Arc::new(bytes)).map_err(|error| refused(error.to_string()))?;
        Ok(Self { table, endpoints: Endpoints::of(config) })
    }

    fn ask(&self, config: &Config, from: &Origin, flow: &Flow) -> Verdict {
        let view = self.table.view();
        let named = |nets: Option<&Vec<IpNet>>| {
            let net = nets.and_then(|nets| oracle::speaks_from(nets, flow.destination));
            let actor = net.and_then(|net| self.endpoints.at(&net));
            EndpointId(actor.map_or(0, |actor| actor + 1))
        };
        let source = match from {
            Origin::Address(address) => view.endpoint_at(Address::from(*address)),
            Origin::Device(name) => {
                let device = config.devices.iter().find(|device| device.name == *name);
                named(device.map(|device| &device.addresses))
            }
            Origin::Segment(name) => {
                let segment = config.segments.iter().find(|segment| segment.name == *name);
                named(segment.map(|segment| &segment.subnets))
            }
        };
        let destination = view.endpoint_at(Address::from(flow.destination));
        let Some(source) = label(view, source) else {
            return Verdict::Deny(Denied::UnknownSource);
        };
        let Some(destination) = label(view, destination) else {
            return Verdict::Deny(Denied::UnknownDestination);
        };
        match view.judge(source, destination, Service::new(flow.protocol, flow.port)) {
            bulkhead_table::Verdict::Allow(rule) => Verdict::Allow(rule.0),
            bulkhead_table::Verdict::Deny(Denial::NoRuleForPair) => Verdict::Deny(Denied::NoRule),
            bulkhead_table::Verdict::Deny(Denial::PortNotAllowed) => {
                Verdict::Deny(Denied::ServiceNotAllowed)
            }
        }
    }
}

fn label(view: View<'_>, id: EndpointId) -> Option<LabelId> {
    view.endpoint(id).map(|endpoint| endpoint.label)
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The one who asks is not there.
    #[error("{found}: {problem}; accepted are device:NAME, segment:NAME and IP addresses")]
    From {
        /// As given.
        found: String,
        /// What is wrong, with the nearest name if there is one.
        problem: String,
    },
    /// There is nobody of that name.
    #[error("{found}: {problem}; accepted are addresses, kind:name, any and internet")]
    Who {
        /// As given.
        found: String,
        /// What is wrong, with the nearest name if there is one.
        problem: String,
    },
    /// Something that is given could not be read.
    #[error("{found}: {problem}")]
    Given {
        /// As given.
        found: String,
        /// What is wrong, with the nearest name if there is one.
        problem: String,
    },
    /// The flow could not be read.
    #[error("{found}: {reason}")]
    To {
        /// As given.
        found: String,
        /// What is wrong.
        reason: InvalidFlow,
    },
    /// The configuration is too large for a table.
    #[error(transparent)]
    Compile(#[from] CompileErrors),
    /// The compiler is wrong, or the oracle.
    #[error(
        "defect in the policy compiler: {from} to {flow} is {table:?} by the table but {oracle:?} \
         by the rules; do not apply this policy, and report this"
    )]
    Disagreement {
        /// Who asks.
        from: String,
        /// What for.
        flow: String,
        /// What the table says.
        table: Verdict,
        /// What the rules say.
        oracle: Verdict,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_config::{KeyFileError, KeySource, Secret};

    struct AnyKey;

    impl KeySource for AnyKey {
        fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
            Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
        }
    }

    /// A table of other rules than the oracle reads: as if the compiler were wrong.
    #[test]
    fn a_table_that_is_not_what_the_rules_say_is_found_out() {
        let text = include_str!("../../config/examples/small-company.toml");
        let config = Config::parse_with("example", text, &AnyKey).unwrap();
        let mut other = config.clone();
        other.rules.clear();
        let policy = Policy { config: &other, ..Policy::new(&config).unwrap() };

        let from = Origin::Device("anna-laptop".to_owned());
        let flow = "10.20.1.5 tcp/443".parse().unwrap();
        let error = policy.judge(&from, &flow).unwrap_err();
        assert_eq!(
            error,
            QuestionError::Disagreement {
                from: "device:anna-laptop".to_owned(),
                flow: "10.20.1.5 tcp/443".to_owned(),
                table: Verdict::Allow(0),
                oracle: Verdict::Deny(Denied::NoRule),
            }
        );
        assert_eq!(policy.explain(&from, &flow), Err(error));
        // Neither a wanted yes nor a wanted no is met by it.
        let outcomes = policy.run_tests().unwrap();
        assert!(!outcomes[0].passed());
        assert!(outcomes[0].failures[0].defect.is_some());
    }
}
