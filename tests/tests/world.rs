//! The world itself, before anything is played in it: what it promises about machines and cables,
//! and that it always goes away.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bulkhead_tests::probe::{field, last_line, number};
use bulkhead_tests::{Deadline, End, Look, Namespace, Office, World, program, until};
use rustix::process::{Pid, Signal, kill_process};

struct Pair {
    left: Namespace,
    right: Namespace,
    world: World,
}

/// Two machines and a cable of two queues.
fn pair() -> Pair {
    let world = World::new().unwrap();
    let left = world.namespace("left").unwrap();
    let right = world.namespace("right").unwrap();
    let left_end =
        End { namespace: &left, device: "l0", addresses: &["10.9.0.1/24", "fd09::1/64"] };
    let right_end =
        End { namespace: &right, device: "r0", addresses: &["10.9.0.2/24", "fd09::2/64"] };
    world.link(left_end, right_end, 2).unwrap();
    Pair { left, right, world }
}

fn netns_path(namespace: &Namespace) -> PathBuf {
    Path::new("/run/netns").join(namespace.full_name())
}

#[test]
fn two_machines_reach_each_other_over_two_queues() {
    let pair = pair();
    for address in ["10.9.0.2", "fd09::2"] {
        pair.left.exec(&["ping", "-c", "2", "-i", "0.01", "-W", "2", address]).unwrap();
    }
    let details = pair.right.ip("-d link show dev r0").unwrap();
    for want in ["numtxqueues 2", "numrxqueues 2"] {
        assert!(details.contains(want), "{want} not in {details}");
    }
    let features = pair.right.exec(&["ethtool", "-k", "r0"]).unwrap();
    for want in [
        "tx-checksumming: off",
        "tcp-segmentation-offload: off",
        "generic-segmentation-offload: off",
        "generic-receive-offload: off",
    ] {
        assert!(features.contains(want), "{want} not in {features}");
    }
}

#[test]
fn the_office_is_wired_as_drawn() {
    let office = Office::build().unwrap();
    let ping = |from: &Namespace, to| {
        from.output(&["ping", "-c", "1", "-W", "2", to]).unwrap().code == Some(0)
    };
    for to in ["192.0.2.1", "2001:db8::1", "192.0.2.12", "2001:db8::12"] {
        assert!(ping(&office.laptop, to), "{to}");
    }
    for to in ["10.20.1.1", "fd20:1::1"] {
        assert!(ping(&office.legacy, to), "{to}");
    }
    let forwarded = office.legacy.output(&["ping", "-c", "1", "-W", "1", "192.0.2.11"]).unwrap();
    assert_ne!(forwarded.code, Some(0), "the gateway's kernel forwards");
}

#[test]
fn a_machine_forwards_only_when_told() {
    let pair = pair();
    let far = pair.world.namespace("far").unwrap();
    let near_end = End { namespace: &pair.right, device: "r1", addresses: &["10.9.1.2/24"] };
    let far_end = End { namespace: &far, device: "f0", addresses: &["10.9.1.3/24"] };
    pair.world.link(near_end, far_end, 1).unwrap();
    pair.left.ip("route add 10.9.1.0/24 via 10.9.0.2").unwrap();
    far.ip("route add default via 10.9.1.2").unwrap();

    let ping = ["ping", "-c", "1", "-W", "1", "10.9.1.3"];
    assert_eq!(pair.left.output(&ping).unwrap().code, Some(1), "forwarded without being told");
    pair.right.forward().unwrap();
    pair.left.exec(&ping).unwrap();
}

#[test]
fn a_switch_joins_its_ports() {
    let world = World::new().unwrap();
    let middle = world.namespace("middle").unwrap();
    let hosts: Vec<_> = (1..=3)
        .map(|host| {
            let namespace = world.namespace(&format!("host{host}")).unwrap();
            let address = format!("10.9.2.{host}/24");
            let port = format!("p{host}");
            let inner = End { namespace: &middle, device: &port, addresses: &[] };
            let outer = End { namespace: &namespace, device: "eth0", addresses: &[&address] };
            world.link(inner, outer, 1).unwrap();
            namespace
        })
        .collect();
    world.switch(&middle, &["p1", "p2", "p3"]).unwrap();
    for address in ["10.9.2.2", "10.9.2.3"] {
        hosts[0].exec(&["ping", "-c", "1", "-W", "2", address]).unwrap();
    }
}

#[test]
fn closures_run_inside_and_the_caller_stays_outside() {
    let pair = pair();
    let devices = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(pair.left.run(devices).unwrap().contains("l0:"));
    assert!(pair.right.start(devices).join().unwrap().unwrap().contains("r0:"));
    assert!(!devices().contains("l0:"), "the caller was moved");
}

#[test]
fn a_failed_command_tells_what_it_wrote() {
    let pair = pair();
    let failure = pair.left.exec(&["sh", "-c", "echo seen; echo wrong >&2; exit 3"]).unwrap_err();
    let text = failure.to_string();
    for want in ["left: ", "exit code 3", "seen", "wrong"] {
        assert!(text.contains(want), "{want:?} not in {text:?}");
    }
}

#[test]
fn streams_count_what_came_and_notice_silence() {
    let pair = pair();
    for (carrier, port) in [("tcp", 7001), ("udp", 7002)] {
        let label = format!("receive-{carrier}");
        let listen = format!("stream-receive {carrier} 10.9.0.2:{port} --quiet-ms 100");
        let mut receiver = pair.right.probe_server(&label, &listen).unwrap();
        let send = format!("stream-send {carrier} 10.9.0.2:{port} --interval-us 500");
        let mut sender = pair.left.probe(&format!("send-{carrier}"), &send).unwrap();
        receiver
            .wait_for_log(Deadline::seconds(10), "200 records", |log| {
                (number(last_line(log, "progress")?, "received")? >= 200).then_some(())
            })
            .unwrap();
        // Cut the cable: records stop, the sockets know nothing.
        pair.left.ip("link set l0 down").unwrap();
        let quiet = receiver
            .wait_for_log(Deadline::seconds(10), "silence", |log| {
                last_line(log, "quiet").map(str::to_owned)
            })
            .unwrap();
        assert_eq!(number(&quiet, "missing"), Some(0), "{quiet}");
        pair.left.ip("link set l0 up").unwrap();
        let resumed = receiver
            .wait_for_log(Deadline::seconds(20), "the stream again", |log| {
                last_line(log, "resumed").map(str::to_owned)
            })
            .unwrap();
        assert!(number(&resumed, "after_ns").unwrap() >= 100_000_000, "{resumed}");
        let gaps = receiver.log().lines().filter(|line| line.starts_with("gap ")).count();
        match carrier {
            "tcp" => assert_eq!(gaps, 0, "TCP repeats what was lost"),
            _ => assert!(gaps >= 1, "UDP does not:\n{}", receiver.log()),
        }
        sender.kill().unwrap();
    }
}

#[test]
fn a_download_has_the_hash_of_its_seed() {
    let pair = pair();
    let content = bulkhead_tests::probe::http::Content { seed: 11, len: 3_000_000 };
    let _server = pair
        .right
        .probe_server("http", "http-serve [fd09::2]:80 --seed 11 --bytes 3000000")
        .unwrap();
    let told = pair.left.probe_once("http-get [fd09::2]:80").unwrap().stdout;
    assert_eq!(field(&told, "sha256"), Some(content.sha256().unwrap().as_str()), "{told}");
    assert_eq!(number(&told, "bytes"), Some(3_000_000));
    assert_eq!(number(&told, "status"), Some(200));
}

#[test]
fn echoes_are_counted_and_connections_tried() {
    let pair = pair();
    let run = |words: &str| pair.left.probe_once(words).unwrap();
    let _echo = pair.right.probe_server("echo", "udp-echo 10.9.0.2:7").unwrap();
    let all = run("udp-ping 10.9.0.2:7 --count 20 --interval-us 1000");
    assert_eq!((all.code, number(&all.stdout, "lost")), (Some(0), Some(0)), "{all:?}");
    let none = run("udp-ping 10.9.0.2:8 --count 5 --interval-us 1000 --patience-ms 50");
    assert_eq!((none.code, number(&none.stdout, "lost")), (Some(1), Some(5)), "{none:?}");

    let _http =
        pair.right.probe_server("http", "http-serve 10.9.0.2:80 --seed 1 --bytes 1").unwrap();
    let outcome = |words: &str| {
        let output = run(words);
        (output.code, output.stdout.split(' ').next().unwrap().to_owned())
    };
    assert_eq!(outcome("connect 10.9.0.2:80"), (Some(0), "connected".into()));
    assert_eq!(outcome("connect 10.9.0.2:81"), (Some(1), "refused".into()));
    pair.right.ip("link set r0 down").unwrap();
    assert_eq!(outcome("connect 10.9.0.2:80 --patience-ms 100"), (Some(1), "silent".into()));
}

#[test]
fn a_process_that_ends_early_fails_the_wait_with_its_last_words() {
    let pair = pair();
    let mut process =
        pair.left.spawn("brief", &["sh", "-c", "echo out of cheese; exit 4"]).unwrap();
    let failure = process
        .wait_for_log(Deadline::seconds(10), "a miracle", |log| {
            log.contains("miracle").then_some(())
        })
        .unwrap_err()
        .to_string();
    assert!(failure.contains("out of cheese") && failure.contains("4"), "{failure}");
}

#[test]
fn a_dropped_world_leaves_nothing_not_even_orphans() {
    let pair = pair();
    let folder = pair.world.folder().to_path_buf();
    let paths = [netns_path(&pair.left), netns_path(&pair.right)];
    // The shell ends; its child in a session of its own stays.
    pair.left.exec(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &"]).unwrap();
    let orphan = until(Deadline::seconds(10), "the orphan", || {
        let found = pair.left.members_running("sleep")?;
        Ok(match found.first() {
            Some(pid) => Look::Ready(*pid),
            None => Look::NotYet(format!("{:?}", pair.left.members()?)),
        })
    })
    .unwrap();
    drop(pair);
    assert_gone(orphan, &paths, &folder);
}

#[test]
fn a_panic_leaves_nothing() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let outcome = std::thread::spawn(move || {
        let pair = pair();
        let sleeper = pair.right.spawn("sleep", &["sleep", "1000"]).unwrap();
        let paths = [netns_path(&pair.left), netns_path(&pair.right)];
        sender.send((sleeper.pid(), paths, pair.world.folder().to_path_buf())).unwrap();
        panic!("as intended");
    })
    .join();
    assert!(outcome.is_err());
    let (pid, paths, folder) = receiver.recv().unwrap();
    assert_gone(pid, &paths, &folder);
}

/// A second process that holds a world, and what it made.
struct Holder {
    child: Child,
    netns: PathBuf,
    folder: PathBuf,
    server: u32,
}

impl Holder {
    fn start() -> Self {
        let mut child = Command::new(program("bulkhead-probe").unwrap())
            .arg("hold-world")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let netns = Path::new("/run/netns").join(field(&line, "namespace").expect(&line));
        let folder = PathBuf::from(field(&line, "folder").unwrap());
        let server = number(&line, "server").unwrap().try_into().unwrap();
        assert!(netns.exists() && folder.is_dir());
        Self { child, netns, folder, server }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Of a test that failed before it came to the end of its holder; its world is then swept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_a_killed_process_left_is_swept_by_the_next_start_and_the_living_are_spared() {
    let mut dead = Holder::start();
    let mut alive = Holder::start();
    dead.child.kill().unwrap();
    dead.child.wait().unwrap();
    // Another test of this run may have swept already; after this one it must be done.
    let world = World::new().unwrap();
    assert_gone(dead.server, std::slice::from_ref(&dead.netns), &dead.folder);
    assert!(alive.netns.exists() && alive.folder.is_dir(), "swept the world of a living process");
    assert!(Path::new(&format!("/proc/{}", alive.server)).exists());
    drop(world);

    terminate(&mut alive.child, Signal::TERM, 143);
    assert_gone(alive.server, std::slice::from_ref(&alive.netns), &alive.folder);
}

#[test]
fn ctrl_c_removes_the_world_before_the_process_ends() {
    let mut holder = Holder::start();
    terminate(&mut holder.child, Signal::INT, 130);
    assert_gone(holder.server, std::slice::from_ref(&holder.netns), &holder.folder);
}

fn terminate(child: &mut Child, signal: Signal, want: i32) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    let status = until(Deadline::seconds(20), "the holder to end", || {
        Ok(match child.try_wait().unwrap() {
            Some(status) => Look::Ready(status),
            None => Look::NotYet("it runs".into()),
        })
    })
    .unwrap();
    assert_eq!(status.code(), Some(want));
}

/// Checked at once, without waiting: the removal promises to be complete when it returns.
fn assert_gone(pid: u32, netns: &[PathBuf], folder: &Path) {
    for path in netns {
        assert!(!path.exists(), "{} is left", path.display());
    }
    assert!(!folder.exists(), "{} is left", folder.display());
    // A killed orphan may be a zombie until its new parent reaps it; a zombie has no namespace.
    let network = fs::read_link(format!("/proc/{pid}/ns/net"));
    assert!(network.is_err(), "process {pid} still lives in {network:?}");
}
