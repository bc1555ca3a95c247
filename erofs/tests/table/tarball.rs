//! A tar of a tree, by a writer of its own: every entry has a PAX header, so that nothing is too long or too exact for it.

use std::collections::BTreeMap;

use crate::model::{Node, Tree, What};

/// The tar of `tree`. The nodes learn where in it their content lies.
pub fn tar(tree: &mut Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seen = BTreeMap::new();
    entries(tree, 0, b".", &mut seen, &mut out);
    out.resize(out.len() + 1024, 0);
    out
}

fn entries(tree: &mut Tree, id: u32, path: &[u8], seen: &mut BTreeMap<u32, Vec<u8>>, out: &mut Vec<u8>) {
    let node = &tree.nodes[id as usize];
    if let Some(first) = seen.get(&id) {
        header(out, node, path, b'1', Some(first));
        return;
    }
    seen.insert(id, path.to_vec());
    match node.what.clone() {
        What::File(content) => {
            header(out, node, path, b'0', None);
            tree.nodes[id as usize].offset = out.len() as u64;
            out.extend_from_slice(&content);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        What::Placed { .. } => panic!("it isn't in the tar"),
        What::Symlink(target) => header(out, node, path, b'2', Some(&target)),
        What::Char(..) | What::Whiteout => header(out, node, path, b'3', None),
        What::Block(..) => header(out, node, path, b'4', None),
        What::Fifo => header(out, node, path, b'6', None),
        What::Directory { names, .. } => {
            header(out, node, &[path, b"/"].concat(), b'5', None);
            for (name, child) in names {
                entries(tree, child, &[path, b"/", &name].concat(), seen, out);
            }
        }
    }
}

fn header(out: &mut Vec<u8>, node: &Node, path: &[u8], kind: u8, link: Option<&[u8]>) {
    let mut pax = Vec::new();
    record(&mut pax, b"path", path);
    if let Some(link) = link {
        record(&mut pax, b"linkpath", link);
    }
    let (seconds, nanoseconds) = node.mtime;
    // The fraction counts away from zero.
    let mtime = match (seconds < 0, nanoseconds) {
        (false, _) | (true, 0) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    };
    record(&mut pax, b"mtime", mtime.as_bytes());
    record(&mut pax, b"uid", node.uid.to_string().as_bytes());
    record(&mut pax, b"gid", node.gid.to_string().as_bytes());
    for (name, value) in &node.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    block(out, b'x', 0o644, pax.len(), (0, 0));
    out.extend_from_slice(&pax);
    out.resize(out.len().next_multiple_of(512), 0);

    let size = match &node.what {
        What::File(content) if kind == b'0' => content.len(),
        _ => 0,
    };
    let device = match node.what {
        What::Char(major, minor) | What::Block(major, minor) => (major, minor),
        _ => (0, 0),
    };
    block(out, kind, node.mode, size, device);
}

fn block(out: &mut Vec<u8>, kind: u8, mode: u16, size: usize, device: (u32, u32)) {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "see PAX");
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, std::str::from_utf8(&[kind]).expect("a digit or letter"));
    put(257, "ustar\x0000");
    put(329, &format!("{:07o}", device.0));
    put(337, &format!("{:07o}", device.1));
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

/// A record of PAX begins with its own length.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}
