use super::who::Owner;
use super::*;
use bulkhead_config::{KeyFileError, KeySource, Secret};
use bulkhead_link::{Counted, End, FlowEnding, FlowEvent, FlowPast};
use bulkhead_table::RuleTag;
use std::fs;
use std::time::Instant;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

/// The example with a way to the internet and a shadow rule.
fn config(flow_log: &str) -> Arc<Config> {
    let text = include_str!("../../../config/examples/small-company.toml").to_owned()
        + "\n[[rule]]\nid = \"try\"\nfrom = [\"any\"]\nto = [\"any\"]\nservices = [\"any\"]\n\
           stage = \"shadow\"\n[internet]\nvia = \"device:it-jump\"\n"
        + flow_log;
    Arc::new(Config::parse_with("x.toml", &text, &AnyKey).unwrap_or_else(|e| panic!("{e}")))
}

fn record(event: FlowEvent, protocol: u8, ports: (u16, u16), rule: &str) -> FlowRecord {
    FlowRecord {
        event,
        at_s: 90,
        from: "10.44.0.2".parse().unwrap(),
        to: "10.20.9.1".parse().unwrap(),
        protocol,
        from_port: ports.0,
        to_port: ports.1,
        tag: if rule.is_empty() { 0 } else { RuleTag::of(rule).0 },
        generation: 7,
    }
}

fn batch(records: Vec<FlowRecord>, config: &Arc<Config>) -> Batch {
    let wall: jiff::Timestamp = "2026-12-01T09:00:30.9Z".parse().unwrap();
    let wall_ms = wall.as_millisecond().try_into().unwrap();
    Batch { records, now_ms: 120_500, wall_ms, config: Arc::clone(config) }
}

fn lines_of(records: Vec<FlowRecord>) -> Vec<String> {
    let config = config("");
    let (who, batch, mut lines) = (Who::of(&config), batch(records, &config), vec![]);
    for record in &batch.records {
        write_line(&mut lines, record, &batch, &who);
    }
    String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_record_is_a_line_with_the_names_of_the_configuration() {
    let past = FlowPast {
        reason: FlowEnding::Fin,
        opened_s: 30,
        last_s: 89,
        sent: Counted { packets: 12, bytes: 3_456 },
        returned: Counted { packets: 9, bytes: 20_000 },
    };
    let nobody: FlowRecord = FlowRecord {
        from: "192.0.2.9".parse().unwrap(),
        to: "fd99::1".parse().unwrap(),
        ..record(FlowEvent::Denied(End::DropNoRule), 47, (0, 0), "")
    };
    let public = FlowRecord {
        to: "9.9.9.9".parse().unwrap(),
        ..record(FlowEvent::Denied(End::DropNoRule), 1, (0, 0x0800), "try")
    };
    let found = lines_of(vec![
        record(FlowEvent::Opened, 17, (4_000, 4_070), "it-doors"),
        record(FlowEvent::Closed(past), 6, (4_000, 443), "it-doors"),
        nobody,
        public,
        record(FlowEvent::Opened, 58, (0, 128 << 8), "a rule that is gone"),
    ]);
    let from = r#""from":"10.44.0.2","from_port":4000,"to":"10.20.9.1""#;
    let names = r#""from_name":"device:it-jump","to_name":"segment:doors""#;
    let rule = r#""verdict":"allow","rule":"it-doors","effect":"allow","generation":7"#;
    let want = [
        format!(
            r#"{{"time":"2026-12-01T09:00:00Z","event":"opened",{rule},"protocol":"udp",{from},"to_port":4070,{names}}}"#
        ),
        format!(
            r#"{{"time":"2026-12-01T09:00:00Z","event":"closed",{rule},"protocol":"tcp",{from},"to_port":443,{names},"reason":"fin","opened":"2026-12-01T08:59:00Z","last":"2026-12-01T08:59:59Z","sent":{{"packets":12,"bytes":3456}},"returned":{{"packets":9,"bytes":20000}}}}"#
        ),
        r#"{"time":"2026-12-01T09:00:00Z","event":"denied","verdict":"deny","generation":7,"protocol":47,"from":"192.0.2.9","to":"fd99::1","denial":"drop_no_rule"}"#.to_owned(),
        r#"{"time":"2026-12-01T09:00:00Z","event":"denied","verdict":"deny","rule":"try","effect":"would-allow","generation":7,"protocol":"icmp","from":"10.44.0.2","to":"9.9.9.9","icmp":"8.0","from_name":"device:it-jump","to_name":"internet","denial":"drop_no_rule"}"#.to_owned(),
        format!(
            r#"{{"time":"2026-12-01T09:00:00Z","event":"opened","verdict":"allow","generation":7,"protocol":"icmpv6","from":"10.44.0.2","to":"10.20.9.1","icmp":"128.0",{names}}}"#
        ),
    ];
    assert_eq!(found, want);
}

#[test]
fn the_user_of_a_device_is_named_and_the_longest_prefix_wins() {
    let config = config("");
    let who = Who::of(&config);
    let device = config.devices.iter().find(|device| device.user.is_some()).unwrap();
    let owner = who.has(device.addresses[0].addr()).unwrap();
    assert_eq!(owner.name(), format!("device:{}", device.name));
    assert_eq!(owner.user(), device.user.as_deref());
    // A device with an address inside a segment, and its neighbour.
    let has = |text: &str| who.has(text.parse().unwrap()).map(Owner::name);
    assert_eq!(has("10.20.2.10"), Some("device:payroll-db"));
    assert_eq!(has("10.20.9.1"), Some("segment:doors"));
    assert_eq!(has("10.99.0.1"), None, "not public either");
}

fn figures(log: &FlowLog) -> FlowLogAnswer {
    let mut answer = FlowLogAnswer::default();
    log.tell(&mut answer);
    answer
}

fn until(what: &str, condition: impl Fn() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test waits")]
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_apply_moves_the_log_and_the_end_waits_for_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let log = FlowLog::start(folder.path().to_owned()).unwrap();
    let opened = || record(FlowEvent::Opened, 17, (1, 2), "it-doors");
    let [first, second] = ["", "[flow_log]\nfile = \"other.jsonl\"\n"].map(config);
    for _ in 0..10 {
        log.take(batch(vec![opened(); 400], &first));
    }
    log.take(batch(vec![opened(); 3], &second));
    let answer = Arc::clone(&log.figures);
    log.finish();
    assert_eq!(answer.written.load(Ordering::Relaxed), 4_003);
    let lines = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap().lines().count();
    assert_eq!((lines("flows.jsonl"), lines("other.jsonl")), (4_000, 3));
}

/// A state folder, beside which there may be others.
fn state(folder: &Path) -> PathBuf {
    let state = folder.join("state");
    fs::create_dir(&state).unwrap();
    state
}

/// A configuration that was checked before somebody made a link, or was put in force by an older release.
#[test]
fn nothing_is_written_among_the_daemons_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    let log = FlowLog::start(state.clone()).unwrap();
    let config = config(&format!("[flow_log]\nfile = \"{}/timestamps\"\n", state.display()));
    log.take(batch(vec![record(FlowEvent::Opened, 17, (1, 2), "it-doors")], &config));
    until("the loss", || figures(&log).lost == 1);
    until("the problem", || figures(&log).problem.is_some());
    assert!(figures(&log).problem.unwrap().contains("/timestamps: among bulkheadd's own files"));
    assert!(!state.join("timestamps").exists());
}

/// The disk fails, and then works again: nothing is counted twice, or not at all.
#[test]
fn a_disk_that_fails_is_told_and_every_record_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("there");
    let log = FlowLog::start(state(folder.path())).unwrap();
    let config = config(&format!("[flow_log]\nfile = \"{}/flows.jsonl\"\n", inside.display()));
    let opened = || record(FlowEvent::Opened, 17, (1, 2), "it-doors");
    log.take(batch(vec![opened(); 5], &config));
    until("the loss", || figures(&log).lost == 5);
    until("the problem", || figures(&log).problem.is_some());
    let problem = figures(&log).problem.unwrap();
    assert!(problem.contains("there/flows.jsonl: No such file"), "{problem}");
    fs::create_dir(&inside).unwrap();
    log.take(batch(vec![opened(); 7], &config));
    until("the lines", || figures(&log).written == 7);
    until("the problem to go", || figures(&log).problem.is_none());
    assert_eq!(figures(&log).lost, 5);
}

/// What is lost on a disk that fails is over when it works again, whether or not there is a record then.
#[test]
fn a_problem_goes_by_itself_or_with_an_apply_also_when_no_record_comes_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let log = FlowLog::start(state(folder.path())).unwrap();
    let missing = folder.path().join("there");
    let elsewhere = |path: &Path| config(&format!("[flow_log]\nfile = \"{}/f\"\n", path.display()));
    let [first, other] = [missing.clone(), folder.path().join("gone")].map(|path| elsewhere(&path));
    let opened = || record(FlowEvent::Opened, 17, (1, 2), "it-doors");
    log.take(batch(vec![opened(); 5], &first));
    until("the problem", || figures(&log).problem.is_some());
    fs::create_dir(&missing).unwrap();
    until("the problem to go", || figures(&log).problem.is_none());
    assert_eq!((figures(&log).lost, figures(&log).written), (5, 0));

    log.take(batch(vec![opened()], &other));
    until("the next", || figures(&log).problem.is_some());
    log.configured(&config(""));
    until("the apply", || figures(&log).problem.is_none());
    assert_eq!((figures(&log).lost, figures(&log).written), (6, 0));
}

fn pipe(folder: &Path) -> PathBuf {
    let path = folder.join("flows.jsonl");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    path
}

/// A pipe that nobody reads from is a disk that never answers. Whoever gives waits for nothing, and knows
/// how much was lost: however many records a message has, so many wait as are promised.
#[test]
fn a_disk_that_hangs_holds_up_nobody_and_loses_exactly_what_it_does_not_take() {
    for each in [400_usize, 1] {
        let folder = tempfile::tempdir().unwrap();
        // A pipe that is open for reading and writing takes 64 KB and then waits.
        pipe(folder.path());
        let log = FlowLog::start(folder.path().to_owned()).unwrap();
        let config = config("");
        let opened = || record(FlowEvent::Opened, 17, (1, 2), "it-doors");
        log.take(batch(vec![opened(); 400], &config));
        thread::sleep(Duration::from_millis(50));
        #[expect(clippy::disallowed_methods, reason = "a test looks at the clock")]
        let start = Instant::now();
        for _ in 0..(RECORDS_MAX + 4_000) / each as u64 {
            log.take(batch(vec![opened(); each], &config));
        }
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        let answer = figures(&log);
        assert_eq!(answer.lost, 4_400, "{each}: {answer:?}");
        let problem = answer.problem.unwrap();
        assert!(problem.contains("25600 records wait for the disk"), "{problem}");
    }
}

/// A disk that answers after all: everything that waited is written, and it is said that all is well.
#[test]
fn a_disk_that_answers_again_is_no_problem_and_nothing_is_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = pipe(folder.path());
    let log = FlowLog::start(folder.path().to_owned()).unwrap();
    let config = config("");
    let opened = || record(FlowEvent::Opened, 17, (1, 2), "it-doors");
    for _ in 0..RECORDS_MAX / 400 + 3 {
        log.take(batch(vec![opened(); 400], &config));
    }
    assert!(figures(&log).problem.is_some());
    // Open for writing too, so that it has no end where the log opens the pipe anew.
    let mut reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    until("the lines", || figures(&log).written == RECORDS_MAX);
    until("the problem to go", || figures(&log).problem.is_none());
    assert_eq!(figures(&log).lost, 3 * 400);
}
