use super::*;
use bulkhead_config::KeySource;
use bulkhead_policy_compiler::{PeerMap, Reading, compile_with};
use bulkhead_table::{EndpointId, PeerIndex};
use core::cell::Cell;
use jiff::SignedDuration;
use proptest::prelude::*;

use crate::api::FactChange;
use crate::knowledge::{Devices, Said};

struct AnyKey;
impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<bulkhead_config::Secret, bulkhead_config::KeyFileError> {
        Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().expect("a key"))
    }
}

const DEVICES: [&str; 3] = ["anna", "bert", "zoe"];

pub(crate) fn config() -> Config {
    let mut text = "schema = 1\n[port.a]\ndevice = \"lo\"\n[wireguard.w]\nport = \"a\"\n\
        private_key_file = \"k\"\n[posture.p]\nrequire = { managed = true }\n\
        [posture.q]\nrequire = { screen_lock = true }\nat_most = { risk = 5 }\n"
        .to_owned();
    for (at, name) in (1..).zip(DEVICES) {
        let key = bulkhead_wg::PublicKey([at; 32]);
        text +=
            &format!("[device.{name}]\npublic_key = \"{key}\"\naddresses = [\"10.0.0.{at}/32\"]\n");
    }
    for (id, from, more) in [
        ("a", "any", "posture = [\"p\"]"),
        ("b", "device:anna", "posture = [\"q\"]"),
        ("c", "device:bert", "posture = [\"p\", \"q\"]\naction = \"deny\""),
        ("d", "any", "starts = 1970-01-01T00:10:00Z\nexpires = 1970-01-01T00:20:00Z"),
        ("e", "device:bert", "posture = [\"q\"]\nexpires = 1970-01-01T00:15:00Z"),
    ] {
        text += &format!(
            "[[rule]]\nid = \"{id}\"\nfrom = [\"{from}\"]\nto = [\"device:zoe\"]\n\
             services = [\"any\"]\n{more}\n"
        );
    }
    Config::parse_with("x", &text, &AnyKey).expect("a configuration")
}

#[derive(Clone, Debug)]
enum Step {
    Set(&'static str, &'static str, i64, Option<u32>),
    Clear(&'static str, &'static str),
    Time(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = || prop::sample::select(DEVICES.to_vec());
    let attribute = || prop::sample::select(vec!["managed", "screen_lock", "risk", "tier"]);
    let step = prop_oneof![
        4 => (device(), attribute(), 0..9i64, prop::option::of(1..400u32))
            .prop_map(|(device, name, value, ttl)| Step::Set(device, name, value, ttl)),
        1 => (device(), attribute()).prop_map(|(device, name)| Step::Clear(device, name)),
        3 => (-300..400i64).prop_map(Step::Time),
    ];
    prop::collection::vec(step, 1..40)
}

/// The labels are those that a standing has that is made anew, and what is owed is the difference.
#[test]
fn after_each_step_the_labels_are_those_of_a_standing_that_is_made_anew() {
    let config = Arc::new(config());
    let keys = config.devices.iter().map(|device| device.public_key.0);
    let peers: PeerMap = keys.zip((0..).map(PeerIndex)).collect();
    let (given, taken, recompiled, back) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |cell: &Cell<u32>| cell.set(cell.get() + 1);
    proptest!(ProptestConfig::with_cases(300), |(steps in steps(), late in 0..20usize)| {
        let mut now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(8);
        let mut knowledge = Knowledge::default();
        let mut aligned: Option<(Aligned, Labels)> = None;
        let mut told: BTreeMap<u32, u16> = BTreeMap::new();
        for (number, step) in steps.iter().enumerate() {
            if number >= late && aligned.is_none() {
                let facts = knowledge.facts(&config, now);
                let compiled = compile_with(&config, &peers, 1, Reading::Enforced, &facts).unwrap();
                let labels = compiled.labels.clone();
                told = (0..).zip(&compiled.draft.endpoints).map(|(id, one)| (id, one.label.0)).collect();
                aligned = Some((Aligned::new(Arc::clone(&config), labels.clone(), facts, 1), labels));
            }
            let mut owed = Owed::default();
            match step {
                Step::Set(device, name, value, ttl) => {
                    let value = match *name {
                        "risk" | "tier" => (*value).into(),
                        _ => (*value < 6).into(),
                    };
                    let change = FactChange {
                        device: (*device).to_owned(),
                        set: BTreeMap::from([((*name).to_owned(), value)]),
                        ttl: ttl.map(|ttl| format!("{ttl}s")),
                        source: None,
                    };
                    let devices = Devices::of(&config);
                    knowledge.set(Said::read(&config, &devices, &change, false, now).unwrap());
                    if let Some((aligned, _)) = &mut aligned {
                        aligned.align(device, &knowledge, now, &mut owed);
                    }
                }
                Step::Clear(device, name) => {
                    knowledge.clear(device, &[(*name).to_owned()]);
                    if let Some((aligned, _)) = &mut aligned {
                        aligned.align(device, &knowledge, now, &mut owed);
                    }
                }
                Step::Time(seconds) => {
                    now += SignedDuration::from_secs(*seconds);
                    if *seconds < 0 {
                        count(&back);
                        knowledge.set_back(SignedDuration::from_secs(-seconds));
                    }
                    if let Some((aligned, _)) = &mut aligned {
                        if *seconds < 0 {
                            aligned.align_all(&knowledge, now, &mut owed);
                        }
                        aligned.tick(now, &mut owed);
                    }
                }
            }
            let Some((aligned, labels)) = &aligned else { continue };
            for (endpoint, label) in &owed.labels {
                count(if told.insert(*endpoint, *label) < Some(*label) { &given } else { &taken });
            }
            if owed.recompile {
                count(&recompiled);
            }
            let facts = knowledge.facts(&config, now);
            let fresh = Standing::new(&config, labels.clone(), facts, 1);
            for (endpoint, _) in labels.endpoints() {
                prop_assert_eq!(aligned.standing().label(endpoint), fresh.label(endpoint));
                if endpoint != EndpointId(0) {
                    prop_assert_eq!(told[&endpoint.0], fresh.label(endpoint).0);
                }
            }
            prop_assert!(aligned.next_change().is_none_or(|at| at > now));
        }
    });
    let met = [given.get(), taken.get(), recompiled.get(), back.get()];
    assert!(met.iter().all(|count| *count > 100), "{met:?}");
}
