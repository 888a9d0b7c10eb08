//! The store, as somebody sees it who reads it: a file of SQLite while it grows, another one when it is time.

use std::path::PathBuf;

use tidegate_sources::deribit::simulator::comparison::Stored;

use super::{
    asked::Asked,
    stored::{Reading, Standing},
};
use crate::cli::Failure;

/// What the demo writes to.
#[derive(Debug)]
pub(super) enum Store {
    File { path: PathBuf, reading: Reading },
    Asked { asked: Box<Asked>, shown: String, last: Standing },
}

impl Store {
    pub(super) fn file(path: PathBuf) -> Self {
        Self::File { reading: Reading::begin(path.clone()), path }
    }

    pub(super) fn asked(asked: Asked, shown: String) -> Self {
        Self::Asked { asked: Box::new(asked), shown, last: Standing::default() }
    }

    /// Returns where the store stands; one that does not answer where it stood: its sink says what is wrong.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub(super) async fn standing(&mut self) -> Result<Standing, Failure> {
        match self {
            Self::File { path, .. } => Standing::read(path).await.map_err(|error| {
                let path = path.display();
                Failure::failed(format!("cannot read `{path}`: {error}"))
            }),
            Self::Asked { asked, last, .. } => {
                *last = asked.standing().await.unwrap_or(*last);
                Ok(*last)
            }
        }
    }

    /// Reads all that is there. The one who writes must have ended.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) async fn finish(&mut self) -> Result<Stored, Failure> {
        match self {
            Self::File { path, reading } => reading.finish().await.map_err(|error| {
                let path = path.display();
                Failure::failed(format!("cannot read `{path}`: {error}"))
            }),
            Self::Asked { asked, shown, .. } => asked.stored().await.map_err(|error| {
                let again = "start the demo again to compare";
                Failure::failed(format!("cannot read back what {shown} holds: {}; {again}", error.chain()))
            }),
        }
    }
}
