//! The entries of a zTOC beside those of the tar.

use spandrel_ztoc::Entry;

use super::Differences;

/// How the PAX records of extended attributes begin.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What isn't the same, in the order of the tar.
pub(super) fn compare(said: &[Entry], have: &[Entry], differences: &mut Differences) {
    for (said, have) in said.iter().zip(have) {
        let fields = fields(said, have);
        if !fields.is_empty() {
            differences.add(|| format!("{:?}: {}", name(&have.name), fields.join("; ")));
        }
    }
    if said.len() != have.len() {
        differences.add(|| format!("the zTOC has {} entries, the layer {}", said.len(), have.len()));
    }
}

/// The fields in which two entries differ. Names of users and groups aren't among them, and of PAX records only extended
/// attributes: no reader has a use for the others, and not every builder keeps them.
fn fields(said: &Entry, have: &Entry) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = |name: &str, said: String, have: String| {
        if said != have {
            fields.push(format!("{name} is {have} in the layer and {said} in the zTOC"));
        }
    };
    // As bytes first: two names may look the same.
    if said.name != have.name {
        field("the name", quoted(&said.name), quoted(&have.name));
    }
    if said.linkname != have.linkname {
        field("the link", quoted(&said.linkname), quoted(&have.linkname));
    }
    field("the type", said.kind.name().to_owned(), have.kind.name().to_owned());
    field("the place", said.offset.to_string(), have.offset.to_string());
    field("the size", said.size.to_string(), have.size.to_string());
    field("the mode", format!("{:o}", said.mode), format!("{:o}", have.mode));
    field("the owner", owner(said), owner(have));
    field("the time", format!("{:?}", said.mtime), format!("{:?}", have.mtime));
    field("the device", device(said), device(have));
    if !xattrs(said).eq(xattrs(have)) {
        fields.push("the extended attributes differ".to_owned());
    }
    fields
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", bytes.escape_ascii().to_string())
}

fn owner(entry: &Entry) -> String {
    format!("{}:{}", entry.uid, entry.gid)
}

fn device(entry: &Entry) -> String {
    format!("{}:{}", entry.devmajor, entry.devminor)
}

fn xattrs(entry: &Entry) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> {
    entry.pax.iter().filter(|(key, _)| key.starts_with(XATTR))
}
