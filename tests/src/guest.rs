//! A machine with a kernel of its own: a stock Debian kernel in QEMU, for the WireGuard that is part
//! of Linux. The machine of the test need not have it, and no module is loaded there.
//!
//! ```text
//!   namespace ┬ switch ── tap "guest" ══ QEMU ══ eth0, wg0, probes
//!             └ unix socket ══ virtio port ══ init.sh: runs one line after the other
//! ```
//!
//! The processor is emulated (TCG): a boot takes two to ten seconds, and nothing that is measured in
//! a guest says anything about speed.

mod image;
mod initramfs;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image::Image;

use crate::wait::{Deadline, Look, until};
use crate::{During, Failure, Namespace, Output, Process};

/// Far above the slowest boot that was seen on a busy machine.
const BOOT_SECONDS: u64 = 60;

/// Longer than the bound of a line in `init.sh`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

/// A running guest. Cheap to clone; the last one ends it.
#[derive(Clone, Debug)]
pub struct Guest(Arc<Running>);

#[derive(Debug)]
struct Running {
    process: Mutex<Process>,
    port: Mutex<BufReader<UnixStream>>,
}

impl Guest {
    /// Boots a guest whose `eth0` is plugged into the switch of `namespace` (see
    /// [`World::switch`](crate::World::switch)) and has these addresses, with prefix length. A boot that hangs, as one of four did under heavy
    /// load, is tried a second time.
    ///
    /// # Errors
    ///
    /// If QEMU, the kernel or a tool is missing, or both boots fail.
    pub fn boot(namespace: &Namespace, addresses: &[&str]) -> Result<Self, Failure> {
        let image = Image::build(namespace.folder())?;
        // Multi-queue: QEMU opens a tap with several queues, and the kernel wants both to agree.
        namespace.exec(&["ip", "tuntap", "add", "guest", "mode", "tap", "multi_queue"])?;
        namespace.ip("link set guest master switch up")?;
        let guest = Self::attempt(namespace, &image, 1).or_else(|first| {
            Self::attempt(namespace, &image, 2)
                .map_err(|second| Failure::new(format!("{first}\nand again: {second}")))
        })?;
        guest.exec("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad")?;
        for address in addresses {
            guest.exec(&format!("ip address add {address} dev eth0"))?;
        }
        guest.exec("ip link set eth0 up")?;
        Ok(guest)
    }

    fn attempt(namespace: &Namespace, image: &Image, attempt: u8) -> Result<Self, Failure> {
        let socket = namespace.folder().join(format!("guest-{attempt}.sock"));
        let command = qemu(image, &socket);
        let mut process = namespace.spawn(&format!("guest-{attempt}"), &command)?;
        let deadline = Deadline::seconds(BOOT_SECONDS);
        let port = until(deadline, "QEMU to open the guest's port", || {
            process.check_alive()?;
            Ok(match UnixStream::connect(&socket) {
                Ok(port) => Look::Ready(port),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })?;
        process.wait_for_log(deadline, "a booted guest", |log| {
            log.contains("is ready after").then_some(())
        })?;
        port.set_read_timeout(Some(ANSWER_TIMEOUT)).during(|| "setting a timeout".into())?;
        let port = Mutex::new(BufReader::new(port));
        let guest = Self(Arc::new(Running { process: Mutex::new(process), port }));
        guest.exec("grep -q wireguard /proc/modules")?;
        Ok(guest)
    }

    /// Runs a line of shell to its end; every exit code is a result. Both outputs are in `stdout`.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn output(&self, line: &str) -> Result<Output, Failure> {
        let answer = self.ask(line).map_err(|error| {
            let mut process = self.0.process.lock().unwrap_or_else(PoisonError::into_inner);
            let state = process.check_alive().err().map(|failure| failure.to_string());
            let state = state.unwrap_or_else(|| process.log_tail());
            Failure::new(format!("the guest does not answer to `{line}`: {error}\n{state}"))
        })?;
        let (code, stdout) = answer;
        Ok(Output {
            code: Some(code),
            ended: format!("exit code {code}"),
            stdout,
            stderr: String::new(),
        })
    }

    /// Runs a line of shell and returns what it prints.
    ///
    /// # Errors
    ///
    /// If it ends with another code than 0, or the guest does not answer.
    pub fn exec(&self, line: &str) -> Result<String, Failure> {
        let output = self.output(line)?;
        if output.code == Some(0) {
            return Ok(output.stdout);
        }
        Err(Failure::new(format!("guest: `{line}`: {}\n{}", output.ended, output.stdout)))
    }

    /// Runs the probe to its end; every exit code is a result.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn probe_once(&self, words: &str) -> Result<Output, Failure> {
        self.output(&format!("bulkhead-probe {words}"))
    }

    /// Starts a probe and goes on.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn probe(&self, label: &str, words: &str) -> Result<GuestProcess, Failure> {
        let log = format!("/tmp/{label}.log");
        let line = format!("bulkhead-probe {words} >{log} 2>&1 & echo $!");
        let pid = self.exec(&line)?.trim().to_owned();
        Ok(GuestProcess { guest: self.clone(), pid, log })
    }

    /// Exit code and output of a line.
    fn ask(&self, line: &str) -> std::io::Result<(i32, String)> {
        let mut port = self.0.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut head = String::new();
        port.read_line(&mut head)?;
        let mut numbers = head.split_ascii_whitespace();
        let strange = || std::io::Error::other(format!("{head:?} is not the head of an answer"));
        let code = numbers.next().and_then(|word| word.parse().ok()).ok_or_else(strange)?;
        let len = numbers.next().and_then(|word| word.parse().ok()).ok_or_else(strange)?;
        let mut output = vec![0; len];
        port.read_exact(&mut output)?;
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    }
}

/// A program that goes on inside a guest. Dropping it kills it.
#[derive(Debug)]
pub struct GuestProcess {
    guest: Guest,
    pid: String,
    log: String,
}

impl GuestProcess {
    /// Everything it has written so far.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn log(&self) -> Result<String, Failure> {
        self.guest.exec(&format!("cat {}", self.log))
    }
}

impl Drop for GuestProcess {
    fn drop(&mut self) {
        // It may have ended by itself, and the guest ends with its world anyway.
        let _ = self.guest.output(&format!("kill -9 {}", self.pid));
    }
}

fn qemu(image: &Image, socket: &Path) -> Vec<PathBuf> {
    let port = format!("socket,id=port,path={},server=on,wait=on", socket.display());
    let mut command: Vec<PathBuf> = ["qemu-system-x86_64", "-kernel"].map(PathBuf::from).into();
    command.extend([image.kernel.clone(), "-initrd".into(), image.initramfs.clone()]);
    // No vnet header: the frames of a guest have their checksums and are no larger than the MTU,
    // as on a cable (see link.rs).
    let words = "-machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 256 -display none \
                 -no-reboot -nodefaults -serial stdio \
                 -netdev tap,id=net,ifname=guest,script=no,downscript=no,vhost=off,vnet_hdr=off,queues=2 \
                 -device virtio-net-pci,netdev=net,mq=on,vectors=6,romfile= \
                 -device virtio-serial-pci -device virtserialport,chardev=port,name=bulkhead";
    command.extend(words.split_ascii_whitespace().map(PathBuf::from));
    command.extend(["-chardev".into(), port.into()]);
    command.extend(["-append".into(), "console=ttyS0 quiet panic=-1".into()]);
    command
}
