//! What is asked of a node with very many images, and of which node.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

use crate::network::Network;
use crate::node::Node;
use crate::system::{Mode, Overlayfs, Spandrel, System};

/// Images on the node when the questions don't say how many.
pub const IMAGES: usize = 200;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// What so many images on the node take, and how soon a container starts beside them; with none, what is compared with.
    Images(usize),
    /// How soon so many containers are ready that are started at once.
    Starts(usize),
    /// How long the daemon takes to be there again.
    Restart,
}

impl FromStr for Question {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once(':') {
            Some(("images", count)) => count.parse().ok().map(Self::Images),
            Some(("starts", count)) => count.parse().ok().filter(|count| *count > 0).map(Self::Starts),
            _ => (text == "restart").then_some(Self::Restart),
        };
        let Some(question) = parsed else {
            bail!("there is no question {text:?}; there are: images:N, starts:N, restart");
        };
        Ok(question)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images(count) => write!(out, "images:{count}"),
            Self::Starts(count) => write!(out, "starts:{count}"),
            Self::Restart => out.write_str("restart"),
        }
    }
}

/// How many images these questions put on the node; those that name no number come after the last image.
pub fn most_images(questions: &[Question]) -> usize {
    let named = questions.iter().filter_map(|question| match question {
        Question::Images(count) => Some(*count),
        _ => None,
    });
    let starts = questions.iter().filter_map(|question| match question {
        Question::Starts(count) => Some(*count),
        _ => None,
    });
    // Containers that are started at once have an image each.
    named.max().unwrap_or(IMAGES).max(starts.max().unwrap_or(0))
}

impl Question {
    /// How many images the node has when this question, one of a run's, is asked: those of the greatest question before it, or
    /// all that there will be.
    pub fn images_before(self, questions: &[Self]) -> usize {
        let Self::Images(count) = self else { return most_images(questions) };
        let named = questions.iter().filter_map(|question| match question {
            Self::Images(other) if *other < count => Some(*other),
            _ => None,
        });
        named.max().unwrap_or(0)
    }
}

/// How a node keeps its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Spandrel as it comes: layers in use are mounted, and the hundred used last.
    Spandrel,
    /// Spandrel with a view of each image, so that all their layers are in use and mounted.
    Mounted,
    /// containerd's overlayfs: all unpacked.
    Overlayfs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spandrel, Self::Mounted, Self::Overlayfs];

    /// Its name in commands and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spandrel => "spandrel",
            Self::Mounted => "spandrel-mounted",
            Self::Overlayfs => "overlayfs",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == name) else {
            bail!("there is no system {name:?}; there are: {}", Self::ALL.map(Self::name).join(", "));
        };
        Ok(kind)
    }

    /// The system that it is a kind of.
    pub fn system(self) -> Box<dyn System> {
        match self {
            Self::Spandrel | Self::Mounted => Box::new(Spandrel(Mode::Lazy)),
            Self::Overlayfs => Box::new(Overlayfs),
        }
    }

    /// Whether the question can be asked of it: containerd's own snapshotter has no daemon.
    pub fn answers(self, question: Question) -> bool {
        self != Self::Overlayfs || question != Question::Restart
    }

    /// A node without images, where every layer that has an index is lazy, however small.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start(self, network: &Network) -> Result<Node> {
        match self {
            Self::Spandrel | Self::Mounted => Spandrel::start_with(network, "[index]\nmin_layer_size = 1\n"),
            Self::Overlayfs => Overlayfs.start(network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_and_written() {
        for text in ["images:0", "images:1", "starts:16", "restart"] {
            assert_eq!(text.parse::<Question>().unwrap().to_string(), text);
        }
        for wrong in ["images", "images:x", "starts:0", "starts:x", "restart:1", ""] {
            assert!(wrong.parse::<Question>().unwrap_err().to_string().contains("images:N"), "{wrong}");
        }
        assert_eq!(most_images(&[Question::Restart]), IMAGES);
        assert_eq!(most_images(&[Question::Images(50), Question::Images(2), Question::Starts(16)]), 50);
        assert_eq!(most_images(&[Question::Images(2), Question::Starts(16)]), 16);
        let questions = ["images:1", "images:50", "starts:60", "restart"].map(|text| text.parse().unwrap());
        assert_eq!(questions.map(|question: Question| question.images_before(&questions)), [0, 1, 60, 60]);
        assert!(Kind::named("soci").is_err() && Kind::named("spandrel-mounted").unwrap() == Kind::Mounted);
        assert!(!Kind::Overlayfs.answers(Question::Restart) && Kind::Mounted.answers(Question::Restart));
    }
}
