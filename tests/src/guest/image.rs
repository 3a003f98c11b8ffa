//! What a guest starts from: a stock Debian kernel, and an archive with busybox, `wg`, our probe and
//! the kernel modules that are needed. `make tools` unpacks the kernel's package into
//! `target/tools/linux`; nothing is installed on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::initramfs::Initramfs;
use crate::program::{linux, program};
use crate::{During, Failure};

/// Modules that a guest uses itself. What they depend on is found in them.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "virtio_console", "wireguard"];

/// The first program of the guest.
const INIT: &str = include_str!("init.sh");

/// Kernel and archive, ready for QEMU.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Image {
    /// Writes the archive into `folder`.
    pub(crate) fn build(folder: &Path) -> Result<Self, Failure> {
        let kernel = linux("vmlinuz")?;
        let mut archive = Initramfs::default();
        for name in ["dev", "proc", "sys", "tmp", "bin"] {
            archive.folder(name)?;
        }
        archive.file("init", INIT.as_bytes())?;
        archive.copy(&linux("busybox")?, "bin/busybox")?;
        archive.link("bin/sh", "busybox")?;
        let wg = PathBuf::from("/usr/bin/wg");
        add_program(&mut archive, &program("bulkhead-probe")?, "bin/bulkhead-probe")?;
        add_program(&mut archive, &wg, "bin/wg")?;
        let order = Modules::find(&linux("modules/modules.builtin")?)?.in_order(MODULES)?;
        let mut names = String::new();
        for (name, path) in order {
            archive.copy(&path, &format!("modules/{name}"))?;
            names.push_str(&name);
            names.push('\n');
        }
        archive.file("modules/order", names.as_bytes())?;
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, archive.finish()?)
            .during(|| format!("writing {}", initramfs.display()))?;
        Ok(Self { kernel, initramfs })
    }
}

/// A program with the libraries that it is linked with, each at the path where it is here.
fn add_program(archive: &mut Initramfs, path: &Path, to: &str) -> Result<(), Failure> {
    archive.copy(path, to)?;
    let output = Command::new("ldd").arg(path).output().during(|| "running ldd".into())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for library in text.split_ascii_whitespace().filter_map(|word| word.strip_prefix('/')) {
        // A library of both programs is written twice, with the same content.
        archive.copy(&Path::new("/").join(library), library)?;
    }
    Ok(())
}

/// The modules of a kernel package, and those that are part of the kernel itself.
struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: String,
}

impl Modules {
    /// Those in the folder of this list, which the package brings along.
    fn find(list: &Path) -> Result<Self, Failure> {
        let builtin = fs::read_to_string(list).during(|| format!("reading {}", list.display()))?;
        let mut files = BTreeMap::new();
        let mut pending: Vec<_> = list.parent().into_iter().map(Path::to_path_buf).collect();
        while let Some(path) = pending.pop() {
            let what = || format!("reading {}", path.display());
            for entry in fs::read_dir(&path).during(what)? {
                let path = entry.during(what)?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                    files.insert(canonical(&stem), path);
                }
            }
        }
        Ok(Self { files, builtin: canonical(&builtin) })
    }

    /// The wanted modules and all that they depend on, in an order in which they load.
    fn in_order(&self, wanted: &[&str]) -> Result<Vec<(String, PathBuf)>, Failure> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<(String, PathBuf)>) -> Result<(), Failure> {
        let name = canonical(name);
        if order.iter().any(|(there, _)| *there == name)
            || self.builtin.contains(&format!("/{name}.ko\n"))
        {
            return Ok(());
        }
        let path = self
            .files
            .get(&name)
            .ok_or_else(|| Failure::new(format!("the kernel's package has no module {name}")))?;
        let bytes = fs::read(path).during(|| format!("reading {}", path.display()))?;
        for dependency in depends(&bytes) {
            self.add(&dependency, order)?;
        }
        order.push((name, path.clone()));
        Ok(())
    }
}

/// The kernel takes hyphens and underscores in the names of modules for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The line `depends=a,b` of a module's `.modinfo` section, whose lines end with a zero.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = module.get(at + KEY.len()..).unwrap_or_default();
    let line = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    line.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read_from_it() {
        let section = b"license=GPL\0depends=udp_tunnel,libcurve25519-generic\0name=wireguard\0";
        assert_eq!(depends(section), ["udp_tunnel", "libcurve25519-generic"]);
        assert_eq!(depends(b"license=GPL\0depends=\0"), Vec::<String>::new());
        assert_eq!(depends(b"softdepends=x\0"), Vec::<String>::new());
    }
}
