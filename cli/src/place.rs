//! Where an image comes from or goes to, as the command line names it: `registry.example/app:1`, `oci-dir:PATH[:TAG]`,
//! `oci-archive:PATH[:TAG]`, `docker-archive:PATH`, `containerd:NAME`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use spandrel_registry::{Client, Reference, Repository};
use spandrel_soci::containerd::Containerd;
use spandrel_soci::source::{ContainerdSource, DockerArchive, ImageSource, LayoutSource, RegistrySource};
use spandrel_soci::target::{ArchiveTarget, ContainerdTarget, ImageTarget, LayoutTarget, RegistryTarget};

use crate::error::Error;

/// A place for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a registry.
    Registry(Reference),
    /// In a folder with an OCI image layout.
    OciDir(Layout),
    /// In a tar archive with an OCI image layout.
    OciArchive(Layout),
    /// In an archive that `docker save` wrote.
    DockerArchive(PathBuf),
    /// In containerd, under this name. Which containerd, and which namespace, other flags say.
    Containerd(String),
}

/// An image in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The folder or archive.
    pub path: PathBuf,
    /// The image's tag there, if one was named.
    pub tag: Option<String>,
}

/// How a layout is written in a standalone conversion, as soci has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A tar archive.
    OciArchive,
    /// A folder.
    OciDir,
}

impl Layout {
    /// `PATH[:TAG]`: what is behind the last colon is a tag unless it has a slash.
    fn parse(text: &str) -> Result<Self, String> {
        let (path, tag) = match text.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (text, None),
        };
        if path.is_empty() || tag == Some("") {
            return Err("a path is missing, or a tag behind the colon: oci-dir:PATH[:TAG]".to_owned());
        }
        Ok(Self { path: PathBuf::from(path), tag: tag.map(str::to_owned) })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("oci-dir", rest)) => Ok(Self::OciDir(Layout::parse(rest)?)),
            Some(("oci-archive", rest)) => Ok(Self::OciArchive(Layout::parse(rest)?)),
            Some(("docker-archive", "")) => Err("a path is missing: docker-archive:PATH".to_owned()),
            Some(("docker-archive", rest)) => Ok(Self::DockerArchive(PathBuf::from(rest))),
            Some(("containerd", "")) => {
                Err("a name is missing: containerd:registry.example/app:1".to_owned())
            }
            Some(("containerd", rest)) => Ok(Self::Containerd(rest.to_owned())),
            _ => text
                .parse()
                .map(Self::Registry)
                .map_err(|error: spandrel_registry::ReferenceError| error.what.to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = |f: &mut fmt::Formatter<'_>, kind: &str, layout: &Layout| {
            write!(f, "{kind}:{}", layout.path.display())?;
            layout.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
        };
        match self {
            Self::Registry(reference) => write!(f, "{reference}"),
            Self::OciDir(place) => layout(f, "oci-dir", place),
            Self::OciArchive(place) => layout(f, "oci-archive", place),
            Self::DockerArchive(path) => write!(f, "docker-archive:{}", path.display()),
            Self::Containerd(name) => write!(f, "containerd:{name}"),
        }
    }
}

impl Place {
    /// Where a path leads in a standalone conversion, for reading: an archive or a folder, whichever is there.
    pub fn standalone_source(path: &str) -> Self {
        let layout = Layout { path: PathBuf::from(path), tag: None };
        if layout.path.is_dir() { Self::OciDir(layout) } else { Self::OciArchive(layout) }
    }

    /// The same for writing.
    pub fn standalone_target(path: &str, format: Format) -> Self {
        let layout = Layout { path: PathBuf::from(path), tag: None };
        match format {
            Format::OciArchive => Self::OciArchive(layout),
            Format::OciDir => Self::OciDir(layout),
        }
    }

    /// The image in a registry, if it is in one.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry(reference) => Some(reference),
            _ => None,
        }
    }

    /// As a source of images, and what to ask it for; `client` is the registry's.
    ///
    /// # Errors
    /// When there is no such image, or it can't be read.
    pub async fn source(
        &self,
        client: Option<Client>,
        containerd: &Containerd,
    ) -> Result<(Arc<dyn ImageSource>, String), Error> {
        let layout = |source: LayoutSource, tag: &Option<String>| {
            let root = source.root(tag.as_deref())?.to_string();
            Ok((Arc::new(source) as Arc<dyn ImageSource>, root))
        };
        match self {
            Self::Registry(reference) => {
                let source = RegistrySource::new(with(client)?, reference.repository.clone());
                Ok((Arc::new(source), reference.manifest_part().to_owned()))
            }
            Self::OciDir(place) => layout(LayoutSource::folder(&place.path).await?, &place.tag),
            Self::OciArchive(place) => layout(LayoutSource::archive(&place.path).await?, &place.tag),
            Self::DockerArchive(path) => Ok(DockerArchive::open(path).await?),
            Self::Containerd(name) => {
                let source = ContainerdSource::open(containerd, name).await?;
                let root = source.root().to_string();
                Ok((Arc::new(source), root))
            }
        }
    }

    /// As a target of images; blobs may be mounted from `from`, a repository of the same registry.
    ///
    /// # Errors
    /// When no image can be put there.
    pub async fn target(
        &self,
        client: Option<Client>,
        containerd: &Containerd,
        from: Option<Repository>,
    ) -> Result<Arc<dyn ImageTarget>, Error> {
        match self {
            Self::Registry(reference) if reference.digest.is_some() => Err(Error::Usage(format!(
                "{reference}: what is made has another digest; name where it goes by a tag"
            ))),
            Self::Registry(reference) => {
                Ok(Arc::new(RegistryTarget::new(with(client)?, reference.clone(), from)))
            }
            Self::OciDir(place) => Ok(Arc::new(LayoutTarget::new(&place.path, place.tag.clone()))),
            Self::OciArchive(place) => Ok(Arc::new(ArchiveTarget::new(&place.path, place.tag.clone())?)),
            Self::DockerArchive(_) => Err(Error::Usage(
                "docker's archives are only read, since they have no place for an index: write oci-archive:PATH"
                    .to_owned(),
            )),
            Self::Containerd(name) => Ok(Arc::new(ContainerdTarget::new(containerd, name).await?)),
        }
    }
}

fn with(client: Option<Client>) -> Result<Client, Error> {
    client.ok_or_else(|| Error::Failed("there is no client for this registry".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        for text in [
            "registry.example/app:1",
            "oci-dir:some/path",
            "oci-dir:/some/path:1.0",
            "oci-archive:a.tar",
            "oci-archive:./a:b/c.tar:x",
            "docker-archive:/a:b.tar",
            "containerd:registry.example/app:1",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        let place: Place = "oci-dir:/a:b/c".parse().unwrap();
        assert_eq!(place, Place::OciDir(Layout { path: "/a:b/c".into(), tag: None }));
        for text in
            ["oci-dir:", "oci-dir:x:", "docker-archive:", "containerd:", "oci-archive::1", "UPPER/x:1:2", ""]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
