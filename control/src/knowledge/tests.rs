use super::*;
use bulkhead_config::KeySource;

struct AnyKey;
impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<bulkhead_config::Secret, bulkhead_config::KeyFileError> {
        Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().expect("a key"))
    }
}

/// anna and bert, whose keys are repetitions of these bytes; the type of the attribute `room`.
pub(crate) fn config(anna: u8, bert: u8, room: &str) -> Config {
    let key = |byte| PublicKey([byte; 32]);
    let text = format!(
        "schema = 1\n[port.a]\ndevice = \"lo\"\n[wireguard.w]\nport = \"a\"\n\
         private_key_file = \"k\"\n[attribute.room]\ntype = \"{room}\"\n\
         [device.anna]\npublic_key = \"{}\"\naddresses = [\"10.0.0.1/32\"]\n\
         [device.bert]\npublic_key = \"{}\"\naddresses = [\"10.0.0.2/32\"]\n",
        key(anna),
        key(bert)
    );
    Config::parse_with("x", &text, &AnyKey).expect("a configuration")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) fn said(
    config: &Config,
    device: &str,
    facts: &[(&str, serde_json::Value)],
    ttl: Option<&str>,
    now: Timestamp,
) -> Said {
    let change = FactChange {
        device: device.to_owned(),
        set: facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        ttl: ttl.map(str::to_owned),
        source: None,
    };
    Said::read(config, &Devices::of(config), &change, false, now).unwrap()
}

fn restored(knowledge: &Knowledge, now: Timestamp) -> (Knowledge, usize) {
    let all = knowledge.clone().take_unkept().into_iter().flat_map(|(_, devices)| devices);
    let text = serde_json::to_string(&all.collect::<BTreeMap<_, _>>()).unwrap();
    let all: BTreeMap<String, KeptDevice> = serde_json::from_str(&text).unwrap();
    Knowledge::restored(all, now)
}

#[test]
fn what_was_said_of_a_key_is_not_true_of_another_under_the_same_name() {
    let before = config(1, 2, "text");
    let mut knowledge = Knowledge::default();
    knowledge.set(said(&before, "anna", &[("managed", true.into())], None, at(0)));
    knowledge.set(said(&before, "bert", &[("managed", true.into())], None, at(0)));
    assert_eq!(knowledge.facts(&before, at(1)).devices.len(), 2);
    let after = config(3, 2, "text");
    let names: Vec<_> = knowledge.facts(&after, at(1)).devices.into_keys().collect();
    assert_eq!(names, ["bert"]);
    // Nor does it come back when something is said of the new key.
    knowledge.set(said(&after, "anna", &[("tier", 1.into())], None, at(2)));
    let names: Vec<String> =
        knowledge.of(&after, &after.devices[0]).facts().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["tier"]);
    assert_eq!(knowledge.facts(&before, at(1)).devices.len(), 1);
}

#[test]
fn a_value_of_another_sort_than_the_configuration_has_now_is_not_known() {
    let before = config(1, 2, "text");
    let mut knowledge = Knowledge::default();
    knowledge.set(said(&before, "anna", &[("room", "cellar".into())], None, at(0)));
    assert_eq!(knowledge.facts(&before, at(1)).devices.len(), 1);
    assert_eq!(knowledge.facts(&config(1, 2, "int"), at(1)).devices.len(), 0);
}

#[test]
fn a_clock_that_is_set_back_does_not_lengthen_a_time_to_live() {
    let config = config(1, 2, "text");
    let mut knowledge = Knowledge::default();
    knowledge.set(said(&config, "anna", &[("managed", true.into())], Some("1h"), at(10_000)));
    knowledge.set(said(&config, "anna", &[("tier", 1.into())], None, at(10_000)));
    // Ten minutes later the clock is set back by two hours.
    knowledge.set_back(SignedDuration::from_secs(7_200));
    let counts =
        |now| knowledge.of(&config, &config.devices[0]).value("managed", Some(at(now))).is_some();
    let now = 10_600 - 7_200;
    assert!(counts(now) && counts(now + 2_999) && !counts(now + 3_000));
    let (_, tier) = knowledge
        .of(&config, &config.devices[0])
        .facts()
        .last()
        .map(|(name, fact)| (name.to_owned(), fact.clone()))
        .unwrap();
    assert_eq!(tier.set_at, at(10_000), "what never goes stale stays as it was said");
}

#[test]
fn what_is_restored_is_what_was_kept_less_what_does_not_count() {
    let config = config(1, 2, "text");
    let mut knowledge = Knowledge::default();
    let of_anna = [("managed", true.into()), ("room", "a \"b\"".into()), ("risk", (-7).into())];
    knowledge.set(said(&config, "anna", &of_anna, None, at(100)));
    knowledge.set(said(&config, "bert", &[("managed", true.into())], Some("1h"), at(100)));
    let of = |(knowledge, senseless): (Knowledge, usize)| {
        assert_eq!(senseless, 0);
        let facts = knowledge.facts(&config, at(0)).devices;
        facts.values().map(|context| context.facts().count()).collect::<Vec<_>>()
    };
    assert_eq!(of(restored(&knowledge, at(3_699))), [3, 1]);
    assert_eq!(
        restored(&knowledge, at(200)).0.facts(&config, at(0)),
        knowledge.facts(&config, at(0))
    );
    assert_eq!(of(restored(&knowledge, at(3_700))), [3], "stale");
    assert_eq!(of(restored(&knowledge, at(99))), [3], "the clock was set back while nobody looked");
}

#[test]
fn a_drawer_is_dirty_until_it_is_kept() {
    let config = config(1, 2, "text");
    let mut knowledge = Knowledge::default();
    assert!(knowledge.is_kept());
    knowledge.set(said(&config, "anna", &[("managed", true.into())], None, at(0)));
    let numbers =
        |drawers: Drawers| drawers.into_iter().map(|(drawer, _)| drawer).collect::<Vec<_>>();
    assert_eq!(numbers(knowledge.take_unkept()), [drawer_of("anna")]);
    assert!(!knowledge.is_kept(), "not before it is said");
    // What changes meanwhile is not kept with it, and what was not kept is taken again.
    knowledge.set(said(&config, "bert", &[("managed", true.into())], None, at(0)));
    knowledge.not_kept();
    let both = BTreeSet::from(["anna", "bert"].map(drawer_of));
    assert!(numbers(knowledge.take_unkept()).into_iter().eq(both));
    knowledge.set(said(&config, "anna", &[("managed", true.into())], None, at(1)));
    knowledge.kept();
    assert_eq!(numbers(knowledge.take_unkept()), [drawer_of("anna")]);
    knowledge.kept();
    let version = knowledge.version();
    assert_eq!((knowledge.clear("carl", &[]), knowledge.is_kept()), (0, true));
    assert_eq!(knowledge.clear("anna", &["tier".to_owned()]), 0);
    assert!(knowledge.is_kept() && knowledge.version() == version);
    assert_eq!(knowledge.clear("anna", &["managed".to_owned()]), 1);
    assert!(!knowledge.is_kept() && knowledge.version() != version);
    assert_eq!(knowledge.take_unkept(), [(drawer_of("anna"), BTreeMap::new())]);
}

#[test]
fn texts_and_sources_are_bounded_and_of_one_line() {
    let config = config(1, 2, "text");
    let devices = Devices::of(&config);
    let read = |room: &str, source: &str| {
        let change = FactChange {
            device: "anna".to_owned(),
            set: BTreeMap::from([("room".to_owned(), room.into())]),
            source: Some(source.to_owned()),
            ttl: None,
        };
        Said::read(&config, &devices, &change, false, at(0)).is_ok()
    };
    let long = |len| "x".repeat(len);
    assert!(read(&long(256), &long(256)) && read("", "mdm"));
    for (room, source) in [
        (long(257), long(1)),
        ("a\nb".to_owned(), long(1)),
        (long(1), long(257)),
        (long(1), String::new()),
        (long(1), "\u{7}".to_owned()),
    ] {
        assert!(!read(&room, &source), "{room:?} {source:?}");
    }
}
