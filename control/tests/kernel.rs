//! What is asked of the real kernel, in network namespaces of this test: devices, addresses,
//! neighbours. Needs root, like the daemon itself.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too, and wait by the clock"
)]

use std::fs::File;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use bulkhead_control::intent::SegmentPlace;
use bulkhead_control::mirror::{self, Command as Ask, Heard};
use bulkhead_control::neighbour::Change;
use bulkhead_control::state::Watch;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

/// Two namespaces: a gateway with `in0`, a host at the other end of the cable. No VLAN: the kernels
/// that this project is tested on lack the module.
struct Net {
    gateway: String,
    host: String,
}

impl Net {
    fn new(test: &str) -> Self {
        let name = |side| format!("bhctl-{}-{test}-{side}", std::process::id());
        let net = Self { gateway: name("g"), host: name("h") };
        run(&["netns", "add", &net.gateway]);
        run(&["netns", "add", &net.host]);
        let link =
            format!("link add in0 netns {} type veth peer name h0 netns {}", net.gateway, net.host);
        run(&link.split(' ').collect::<Vec<_>>());
        for line in [
            "link set lo up",
            "link set in0 up",
            "address add 10.1.0.1/24 dev in0",
            "address add fd01::1/64 dev in0 nodad",
        ] {
            net.ip(&net.gateway, line);
        }
        for line in [
            "link set h0 address 02:00:00:00:00:02",
            "link set h0 up",
            "address add 10.1.0.2/24 dev h0",
            "address add fd01::2/64 dev h0 nodad",
        ] {
            net.ip(&net.host, line);
        }
        net
    }

    fn ip(&self, namespace: &str, line: &str) {
        let mut words = vec!["-n", namespace];
        words.extend(line.split(' '));
        run(&words);
    }

    /// Runs inside the gateway, on a thread of its own: the test's threads stay where they are.
    fn inside<F: Future>(&self, work: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        let path = format!("/run/netns/{}", self.gateway);
        let inside = move || {
            let namespace = File::open(path).unwrap();
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.gateway, &self.host] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn run(words: &[&str]) {
    let output = Command::new("ip").args(words).output().unwrap();
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_addresses_of_a_port_are_those_of_its_device() {
    let net = Net::new("addr");
    let ports = [(0, "in0".to_owned()), (1, "none0".to_owned())];
    let own = net.inside(|| async move { mirror::own_addresses(&ports).await.unwrap() });
    assert_eq!(own.missing, ["none0"]);
    let want = ["10.1.0.1", "fd01::1"].map(address);
    assert_eq!(own.all(), want, "neither loopback nor link-local");
    assert_eq!((own.of_port(0), own.of_port(1)), (&want[..], &[][..]));
    let ports = [(0, "lo".to_owned()), (1, "in0".to_owned())];
    let own = net.inside(|| async move { mirror::own_addresses(&ports).await.unwrap() });
    let loopback = [address("127.0.0.1"), address("::1")];
    assert_eq!((own.all().len(), own.of_port(0)), (4, &loopback[..]));
}

#[test]
fn a_wanted_neighbour_is_resolved_mirrored_and_taken_back() {
    let net = Net::new("neigh");
    let subnets = ["10.1.0.0/24", "fd01::/64"].map(|subnet| subnet.parse().unwrap()).to_vec();
    let watch = Watch {
        ports: vec![(3, "in0".to_owned())],
        segments: vec![SegmentPlace { port: 3, vlan: None, subnets }],
    };
    net.ip(&net.gateway, "neighbour add 10.1.0.9 lladdr 02:00:00:00:00:09 dev in0");
    let gateway = net.gateway.clone();
    net.inside(|| async move {
        let (ask, inbox) = mpsc::unbounded_channel();
        let (outbox, mut changes) = mpsc::unbounded_channel();
        let task = tokio::spawn(mirror::run(inbox, outbox));
        let mut expect = async |text: &str, mac: Option<[u8; 6]>| {
            let want = Heard::Neighbour(Change { port: 3, address: address(text), mac });
            // Other changes may come in between: the kernel probes on its own.
            let found = async {
                while let Some(change) = changes.recv().await {
                    if change == want {
                        return;
                    }
                }
                panic!("the mirror ended");
            };
            let found = tokio::time::timeout(PATIENCE, found).await;
            assert!(found.is_ok(), "no {want:?}");
        };
        ask.send(Ask::Watch(watch)).unwrap();
        expect("10.1.0.9", Some([2, 0, 0, 0, 0, 9])).await;
        for host in ["10.1.0.2", "fd01::2"] {
            ask.send(Ask::Resolve(3, address(host))).unwrap();
            expect(host, Some([2, 0, 0, 0, 0, 2])).await;
        }
        run(&["-n", &gateway, "neighbour", "delete", "10.1.0.9", "dev", "in0"]);
        expect("10.1.0.9", None).await;
        run(&[
            "-n",
            &gateway,
            "neighbour",
            "change",
            "10.1.0.2",
            "lladdr",
            "02:00:00:00:00:03",
            "dev",
            "in0",
        ]);
        expect("10.1.0.2", Some([2, 0, 0, 0, 0, 3])).await;
        // A device that goes takes its neighbours with it.
        run(&["-n", &gateway, "link", "delete", "in0"]);
        expect("10.1.0.2", None).await;
        drop(ask);
        task.await.unwrap().unwrap();
    });
}

#[test]
fn an_address_that_comes_or_goes_is_heard_of() {
    let net = Net::new("own");
    let gateway = net.gateway.clone();
    net.inside(|| async move {
        let (ask, inbox) = mpsc::unbounded_channel();
        let (outbox, mut heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(mirror::run(inbox, outbox));
        // The task has its socket once it answers: what happens before is not heard.
        ask.send(Ask::Watch(Watch { ports: vec![(0, "in0".to_owned())], segments: vec![] }))
            .unwrap();
        run(&[
            "-n",
            &gateway,
            "neighbour",
            "add",
            "10.1.0.9",
            "lladdr",
            "02:00:00:00:00:09",
            "dev",
            "in0",
        ]);
        let mut next = async |what: &str| {
            let heard = tokio::time::timeout(PATIENCE, heard.recv()).await;
            heard.unwrap_or_else(|_| panic!("no {what}")).unwrap()
        };
        while !matches!(next("neighbour").await, Heard::Neighbour(_)) {}
        for change in ["add", "delete"] {
            run(&["-n", &gateway, "address", change, "10.7.0.1/24", "dev", "in0"]);
            while next(change).await != Heard::Addresses {}
        }
        drop(ask);
        task.await.unwrap().unwrap();
    });
}
