//! The crate against the kernel: two veth pairs with two queues each, in network namespaces that
//! the test makes and removes.
//!
//! ```text
//!   left ns          gateway ns             right ns
//!   l0 ◀── veth ──▶ a0 ═ one UMEM ═ b0 ◀── veth ──▶ r0
//! ```
//!
//! Needs root. Without it the test fails: a datapath that was not run is not tested.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test; clippy.toml allows them in test functions but not in what those call"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bulkhead_xsk::{
    AttachMode, BindMode, FRAME_SIZE, Frame, HEADROOM, Interface, Packet, Socket, SocketConfig,
    SteerConfig, Steering, Umem,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const QUEUES: u32 = 2;
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const LISTENER: u16 = 51820;
/// More than the 32 packets after which one sendto stops, and than a small ring holds.
const FRAMES_SENT: u16 = 200;

/// Longer than any part takes on a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Goal: frames that arrive on either queue of one device leave through the other device unchanged
/// but for what we changed, and every frame of the memory is accounted for.
#[test]
fn a_frame_received_on_one_device_is_transmitted_on_the_other() {
    let world = World::new("fwd");
    world.in_gateway(|world| {
        let (umem, mut pool) = Umem::new(1024).unwrap();
        let config = SocketConfig { ring_entries: 64, mode: BindMode::Auto };
        let (a0, b0) = (Interface::by_name("a0").unwrap(), Interface::by_name("b0").unwrap());
        assert_eq!((a0.rx_queues, a0.tx_queues, a0.mtu), (QUEUES, QUEUES, 1500));
        assert_eq!(a0.mac, [2, 0, 0, 0, 0, 1]);

        let mut sockets: Vec<Socket> = Vec::new();
        for (interface, queue) in [(&a0, 0), (&a0, 1), (&b0, 0), (&b0, 1)] {
            let first = sockets.first();
            let socket = Socket::bind(&umem, interface.index, queue, &config, first).unwrap();
            assert!(!socket.is_zerocopy(), "veth copies");
            sockets.push(socket);
        }
        let steer = SteerConfig {
            listeners: vec![LISTENER],
            addresses: vec![IpAddr::V4(OWN)],
            segment: false,
        };
        let steering = Steering::load(&steer).unwrap();
        for queue in [0, 1] {
            steering.set_socket(queue, &sockets[queue as usize]).unwrap();
            // Before the first frame arrives, or it is dropped.
            assert!(sockets[queue as usize].fill(&mut pool, usize::MAX) > 0);
        }
        let attachment = steering.attach(a0.index, AttachMode::Auto).unwrap();
        assert!(attachment.native());

        let (left, right) = (world.packet_socket("left", "l0"), world.packet_socket("right", "r0"));
        let mut per_queue = [0; 2];
        let mut seen = BTreeSet::new();
        for id in 0..FRAMES_SENT {
            send(&left, &datagram(id, LISTENER));
            turn(&mut sockets, &mut pool, &mut per_queue);
            drain(&right, &mut seen);
        }
        wait_for(|| {
            turn(&mut sockets, &mut pool, &mut per_queue);
            drain(&right, &mut seen);
            seen.len() == usize::from(FRAMES_SENT)
        });
        assert!(per_queue[0] > 0 && per_queue[1] > 0, "both queues must be met: {per_queue:?}");
        assert_eq!(per_queue[0] + per_queue[1], usize::from(FRAMES_SENT));

        for socket in &mut sockets {
            socket.reclaim(&mut pool);
            assert_eq!((socket.faults(), socket.misfits()), (0, 0));
            socket.check().unwrap();
            let statistics = socket.statistics().unwrap();
            assert_eq!((statistics.rx_invalid, statistics.tx_invalid), (0, 0), "{statistics:?}");
            assert_eq!((statistics.rx_dropped, statistics.rx_ring_full), (0, 0), "{statistics:?}");
        }
        assert_eq!(pool.len() + umem.lent(), 1024, "a frame is nowhere");
    });
}

/// Goal: what is not for us reaches the kernel's stack beside an attached program, what is for us
/// reaches the socket, and everything reaches the kernel once the attachment is dropped.
#[test]
fn the_kernel_keeps_its_traffic_and_gets_all_of_it_when_the_attachment_is_dropped() {
    let world = World::new("pass");
    world.in_gateway(|world| {
        let a0 = Interface::by_name("a0").unwrap();
        let (umem, mut pool) = Umem::new(256).unwrap();
        let config = SocketConfig { ring_entries: 64, mode: BindMode::Copy };
        let mut first = Socket::bind(&umem, a0.index, 0, &config, None).unwrap();
        let mut second = Socket::bind(&umem, a0.index, 1, &config, Some(&first)).unwrap();
        let ours = UdpSocket::bind((OWN, LISTENER)).unwrap();
        let other = UdpSocket::bind((OWN, 9999)).unwrap();
        for socket in [&ours, &other] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let steer = SteerConfig {
            listeners: vec![LISTENER],
            addresses: vec![IpAddr::V4(OWN)],
            segment: true,
        };
        let steering = Steering::load(&steer).unwrap();
        let left = world.packet_socket("left", "l0");
        let mut packets = Vec::new();
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let attachment = steering.attach(a0.index, mode).unwrap();
            assert_eq!(attachment.native(), mode == AttachMode::Native);
            let again = steering.attach(a0.index, mode).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EBUSY));
            assert!(world.has_xdp("a0"));

            // Without a socket in the map, a redirect passes.
            if mode == AttachMode::Native {
                send(&left, &datagram(1, LISTENER));
                assert_eq!(receive_id(&ours), 1);
                steering.set_socket(0, &first).unwrap();
                steering.set_socket(1, &second).unwrap();
            }
            first.fill(&mut pool, usize::MAX);
            second.fill(&mut pool, usize::MAX);
            send(&left, &datagram(2, LISTENER));
            send(&left, &datagram(3, 9999));
            assert_eq!(receive_id(&other), 3, "the kernel's own traffic");
            assert!(Socket::wait(&[&first, &second], PATIENCE).unwrap());
            assert_eq!(
                first.receive(64, |packet| packets.push(packet))
                    + second.receive(64, |packet| packets.push(packet)),
                1
            );
            let packet = packets.pop().unwrap();
            assert_eq!(packet.data(), datagram(2, LISTENER));
            assert_eq!(usize::from(packet.start), HEADROOM);
            pool.push(packet.frame);

            drop(attachment);
            assert!(!world.has_xdp("a0"), "the program outlived its attachment");
            send(&left, &datagram(4, LISTENER));
            assert_eq!(receive_id(&ours), 4);
            assert!(!Socket::wait(&[&first, &second], Duration::ZERO).unwrap());
        }
    });
}

#[test]
fn a_queue_has_one_socket_and_can_be_bound_again_at_once() {
    let world = World::new("bind");
    world.in_gateway(|_| {
        let a0 = Interface::by_name("a0").unwrap();
        let (umem, mut pool) = Umem::new(64).unwrap();
        let config = SocketConfig { ring_entries: 32, mode: BindMode::Copy };
        let mut socket = Socket::bind(&umem, a0.index, 0, &config, None).unwrap();
        assert_eq!(socket.fill(&mut pool, usize::MAX), 32);
        let taken = Socket::bind(&umem, a0.index, 0, &config, None).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::ResourceBusy, "{taken}");
        drop(socket);
        assert_eq!((umem.lent(), umem.abandoned()), (0, 32));
        for _ in 0..3 {
            Socket::bind(&umem, a0.index, 0, &config, None).unwrap();
        }

        let zerocopy = SocketConfig { mode: BindMode::ZeroCopy, ..config };
        let error = Socket::bind(&umem, a0.index, 0, &zerocopy, None).unwrap_err();
        assert!(error.to_string().starts_with("AF_XDP bind: "), "veth cannot: {error}");
        Socket::bind(&umem, a0.index, 5, &config, None).expect_err("there is no queue 5");
        let (other, _frames) = Umem::new(1).unwrap();
        let first = Socket::bind(&umem, a0.index, 0, &config, None).unwrap();
        let error = Socket::bind(&other, a0.index, 1, &config, Some(&first)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for ring_entries in [0, 1, 33, 1 << 21] {
            let config = SocketConfig { ring_entries, ..config };
            let error = Socket::bind(&umem, a0.index, 1, &config, Some(&first)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{ring_entries}");
        }
    });
}

/// Goal: a datapath that is killed without a chance to clean up leaves nothing attached.
/// Method: this test binary runs the test below in the namespace, and kills it.
#[test]
fn the_attachment_of_a_killed_process_is_gone() {
    let world = World::new("kill");
    let this = std::env::current_exe().unwrap();
    let namespace = world.name("gateway");
    let mut child = Command::new("ip")
        .args(["netns", "exec", &namespace])
        .arg(this)
        .args(["--exact", "child_that_attaches_and_waits_to_be_killed", "--ignored", "--nocapture"])
        .env(CHILD, "a0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| {
        assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
        world.has_xdp("a0")
    });
    // `ip netns exec` replaces itself by the command, so this is SIGKILL to the test below.
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| !world.has_xdp("a0"));
}

const CHILD: &str = "BULKHEAD_XSK_TEST_CHILD";

#[test]
#[ignore = "the other half of the_attachment_of_a_killed_process_is_gone"]
fn child_that_attaches_and_waits_to_be_killed() {
    // Run by hand with all ignored tests, it has nothing to do.
    let Some(device) = std::env::var_os(CHILD) else { return };
    let interface = Interface::by_name(device.to_str().unwrap()).unwrap();
    let steering = Steering::load(&SteerConfig::default()).unwrap();
    let _attachment = steering.attach(interface.index, AttachMode::Auto).unwrap();
    // Blocks; ends if the parent dies first.
    let _ = io::stdin().read(&mut [0; 1]);
}

/// One turn of a worker: all that came in on the first two sockets goes out on the last two, with
/// new MAC addresses.
fn turn(sockets: &mut [Socket], pool: &mut Vec<Frame>, per_queue: &mut [usize; 2]) {
    for queue in 0..2 {
        let mut packets: Vec<Packet> = Vec::new();
        per_queue[queue] += sockets[queue].receive(64, |packet| packets.push(packet));
        for packet in &mut packets {
            packet.data_mut()[..12].copy_from_slice(&FORWARDED_MACS);
        }
        let out = &mut sockets[queue + 2];
        wait_for(|| {
            out.transmit(&mut packets);
            out.flush().unwrap();
            out.reclaim(pool);
            packets.is_empty()
        });
        sockets[queue].fill(pool, usize::MAX);
        sockets[queue].flush().unwrap();
    }
}

const FORWARDED_MACS: [u8; 12] = [0x02, 0, 0, 0, 0, 0x04, 0x02, 0, 0, 0, 0, 0x03];

/// A UDP datagram to us, from a port that depends on `id`, so that flow hashing spreads them.
fn datagram(id: u16, port: u16) -> Vec<u8> {
    let payload = [&id.to_be_bytes()[..], &[0xb5; 70]].concat();
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1]);
    ip.extend(OWN.octets());
    let sum: u32 = ip.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend(ip);
    frame.extend((20_000 + id).to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]); // no UDP checksum, as IPv4 permits
    frame.extend(payload);
    frame
}

fn receive_id(socket: &UdpSocket) -> u16 {
    let mut bytes = [0; 100];
    let len = socket.recv(&mut bytes).expect("nothing reached the kernel's stack");
    assert_eq!(len, 72);
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn send(socket: &OwnedFd, frame: &[u8]) {
    assert_eq!(rustix::io::write(socket, frame).unwrap(), frame.len());
}

/// Notes the datagrams that came out, each of which must be what was sent, with our MACs.
fn drain(socket: &OwnedFd, seen: &mut BTreeSet<u16>) {
    let mut bytes = [0; FRAME_SIZE];
    // EAGAIN when there is no more.
    while let Ok(len) = rustix::io::read(socket, &mut bytes) {
        // The kernel's own neighbour discovery is not ours to judge.
        if bytes[12..14] != [0x08, 0x00] {
            continue;
        }
        let id = u16::from_be_bytes([bytes[42], bytes[43]]);
        let mut want = datagram(id, LISTENER);
        want[..12].copy_from_slice(&FORWARDED_MACS);
        assert_eq!(bytes[..len], want[..], "frame {id}");
        assert!(seen.insert(id), "frame {id} came twice");
    }
}

/// Asks again and again, yielding; the bound turns a hang into a failure.
fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() * 5 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_micros(200));
    }
    panic!("nothing more happens");
}

/// Three namespaces, named after this process and the test. Removed on drop, with all that is in them.
struct World {
    prefix: String,
}

impl World {
    fn new(test: &str) -> Self {
        let world = Self { prefix: format!("bhxsk{}{test}", std::process::id()) };
        for name in ["left", "gateway", "right"] {
            world.ip(&["netns", "add", &world.name(name)]);
            // Frames of the kernel's own would mix with the test's.
            for key in ["all", "default"] {
                let sysctl = format!("net.ipv6.conf.{key}.disable_ipv6=1");
                world.run(name, &["sysctl", "-qw", &sysctl]);
            }
        }
        let gateway = world.name("gateway");
        for (name, device, port, mac) in [("left", "l0", "a0", 1), ("right", "r0", "b0", 3)] {
            let namespace = world.name(name);
            let address = |mac: u8| format!("02:00:00:00:00:{mac:02x}");
            let (near, far, count) = (address(mac), address(mac + 1), QUEUES.to_string());
            let queues = ["numtxqueues", &count, "numrxqueues", &count];
            let mut add = vec!["link", "add", port, "netns", &gateway, "address", &near];
            add.extend(queues);
            add.extend(["type", "veth", "peer", "name", device, "netns", &namespace]);
            add.extend(["address", &far]);
            add.extend(queues);
            world.ip(&add);
            world.run(name, &["ethtool", "-K", device, "tx", "off", "gso", "off", "gro", "off"]);
            world.run(name, &["ip", "link", "set", device, "up"]);
            world.run("gateway", &["ip", "link", "set", port, "up"]);
        }
        world.run("gateway", &["ip", "address", "add", "10.9.0.2/24", "dev", "a0"]);
        world
    }

    /// Runs `test` on a thread of its own that lives in the gateway's namespace.
    fn in_gateway(&self, test: impl FnOnce(&Self) + Send) {
        self.within("gateway", || test(self));
    }

    fn within<T: Send>(&self, name: &str, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name(name))).unwrap();
        let enter =
            || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        let joined = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter().unwrap();
                run()
            });
            thread.join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A packet socket on `device`, that does not block.
    fn packet_socket(&self, name: &str, device: &str) -> OwnedFd {
        self.within(name, || {
            let index = Interface::by_name(device).unwrap().index;
            let protocol = libc::c_int::from(0x0003_u16.to_be()); // ETH_P_ALL
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
            assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
            // SAFETY: just opened, and nobody else's.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let address = libc::sockaddr_ll {
                sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
                sll_protocol: 0x0003_u16.to_be(),
                sll_ifindex: i32::try_from(index).unwrap(),
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            let len = u32::try_from(size_of_val(&address)).unwrap();
            // SAFETY: `address` is readable for `len` bytes.
            let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
            assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
            fd
        })
    }

    /// Whether an XDP program is attached to a device of the gateway.
    fn has_xdp(&self, device: &str) -> bool {
        let shown = self.run("gateway", &["ip", "link", "show", device]);
        shown.contains("prog/xdp")
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn run(&self, name: &str, command: &[&str]) -> String {
        let namespace = self.name(name);
        self.ip(&[&["netns", "exec", &namespace], command].concat())
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(arguments).output().expect("iproute2 is needed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {}: {errors} (is this root?)", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in ["left", "gateway", "right"] {
            // Some may not exist if `new` failed.
            let _ = Command::new("ip").args(["netns", "del", &self.name(name)]).output();
        }
    }
}
