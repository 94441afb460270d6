//! Images by name → the digest of the manifest for the guest's platform, and how its author meant
//! it to be run.
//!
//! Only manifests and configurations are read, and their digests checked; layers only where a
//! user's number has to be looked up ([`crate::image_files`]). What has a digest is
//! kept in a [`Cache`]; what a tag means is asked every time.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use agent_image::Config;
use agent_image_registry::{
    ConfigFile, Descriptor, Digest, Document, DocumentError, ImageConfig, IndexEntry, Manifest,
    Reference, ReferenceError,
};
use policy_images::{Place, PlaceError, Source};

use crate::{
    image_files::{self, FilesError},
    users::Users,
};

/// Configurations of long histories are large, but not larger.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// What the guest runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    architecture: String,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            architecture: "amd64".to_owned(),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let architecture = text.strip_prefix("linux/").unwrap_or(text);
        match architecture {
            "amd64" | "arm64" => Ok(Self {
                architecture: architecture.to_owned(),
            }),
            _ => Err("must be linux/amd64 or linux/arm64".to_owned()),
        }
    }
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not the name of one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The place where it is.
    #[error("{name} cannot be looked up")]
    Place {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: Box<PlaceError>,
    },
    /// Its manifest or index.
    #[error("the manifest of {name} cannot be used")]
    Document {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: Box<DocumentError>,
    },
    /// Not for the guest.
    #[error("{name} has no image for linux/{architecture}")]
    Platform {
        /// The image.
        name: String,
        /// The guest's.
        architecture: String,
    },
    /// Another image than the one that was named.
    #[error("{name} is another image where it was looked up: {found}")]
    Digest {
        /// The image.
        name: String,
        /// What was found.
        found: Digest,
    },
    /// Its configuration.
    #[error("the configuration of {name} cannot be read")]
    Config {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Its users.
    #[error("the users of {name} cannot be looked up; set runAsUser and runAsGroup instead")]
    Files {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: Box<FilesError>,
    },
}

/// An image as the guest will run it.
#[derive(Debug, Clone)]
pub struct Image {
    /// `REGISTRY/REPOSITORY@sha256:DIGEST`.
    pub reference: String,
    /// It was named by a tag, which may mean another image tomorrow.
    pub by_tag: bool,
    /// How its author meant it to be run.
    pub config: ImageConfig,
    /// Its users, if they were looked up.
    pub users: Option<Users>,
    digest: Digest,
    layers: Vec<Descriptor>,
    place: Place,
}

/// A directory of content by its digest.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

impl Cache {
    /// The cache in a directory, which is made when something is kept.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    fn path(&self, digest: &Digest, kind: &str) -> PathBuf {
        self.0.join(kind).join(digest.as_str().replace(':', "-"))
    }

    /// Content with this digest; what has another one is not there.
    fn content(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(digest, "content")).ok()?;
        digest.is_of(&bytes).then_some(bytes)
    }

    /// Keeps something; a cache that cannot be written keeps nothing.
    fn keep(&self, digest: &Digest, kind: &str, bytes: &[u8]) {
        let path = self.path(digest, kind);
        let kept = || -> io::Result<()> {
            let directory = path.parent().unwrap_or(&self.0);
            fs::create_dir_all(directory)?;
            let mut draft = tempfile::NamedTempFile::new_in(directory)?;
            draft.write_all(bytes)?;
            draft.persist(&path)?;
            Ok(())
        };
        let _ = kept();
    }
}

/// Looks images up.
pub struct Images {
    /// How registries are reached.
    pub config: Config,
    /// What the guest runs on.
    pub platform: Platform,
    /// Where content is kept.
    pub cache: Option<Cache>,
    /// Where an image of a name is, instead of in its registry.
    pub places: BTreeMap<String, Place>,
    /// Layouts in which an image of a name may be, by its tag.
    pub layouts: Vec<PathBuf>,
    /// Users are looked up even where no number depends on them.
    pub all_users: bool,
    /// Called before an image is asked for.
    pub progress: Box<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images")
            .field("platform", &self.platform)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// The image of a name.
    ///
    /// # Errors
    ///
    /// [`ImageError`].
    pub fn find(&self, name: &str) -> Result<Image, ImageError> {
        let reference = Reference::parse(name)?;
        let lookup = Lookup {
            images: self,
            name,
            reference: &reference,
            place: self.place(name, &reference),
        };
        lookup.image()
    }

    /// Adds its users to an image.
    ///
    /// # Errors
    ///
    /// [`ImageError::Files`].
    pub fn look_up_users(&self, image: &mut Image) -> Result<(), ImageError> {
        let cached = self.cache.as_ref().and_then(|cache| {
            let text = fs::read_to_string(cache.path(&image.digest, "users")).ok()?;
            let (passwd, group) = text.split_once('\0')?;
            Some(Users {
                passwd: passwd.to_owned(),
                group: group.to_owned(),
            })
        });
        let users = match cached {
            Some(users) => users,
            None => self.read_users(image)?,
        };
        image.users = Some(users);
        Ok(())
    }

    fn read_users(&self, image: &Image) -> Result<Users, ImageError> {
        let name = image.reference.as_str();
        (self.progress)(&format!("looking up the users of {name}"));
        let source = image.place.source(&self.config).map_err(at(name))?;
        let users = image_files::users(&source, &image.layers);
        let users = users.map_err(|source| ImageError::Files {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        if let Some(cache) = &self.cache {
            let text = format!("{}\0{}", users.passwd, users.group);
            cache.keep(&image.digest, "users", text.as_bytes());
        }
        Ok(users)
    }

    fn place(&self, name: &str, reference: &Reference) -> Place {
        if let Some(place) = self.places.get(name) {
            return place.clone();
        }
        let full = reference.to_string();
        for layout in &self.layouts {
            for tag in [name, full.as_str()] {
                let place = Place::Layout {
                    directory: layout.clone(),
                    tag: Some(tag.to_owned()),
                };
                let source = place.source(&self.config);
                if source.is_ok_and(|source| source.root(Some(tag)).is_ok()) {
                    return place;
                }
            }
        }
        Place::Registry(Box::new(reference.clone()))
    }
}

fn at(name: &str) -> impl FnOnce(PlaceError) -> ImageError {
    let name = name.to_owned();
    move |source| ImageError::Place {
        name,
        source: Box::new(source),
    }
}

/// One image's way to its configuration.
struct Lookup<'a> {
    images: &'a Images,
    name: &'a str,
    reference: &'a Reference,
    place: Place,
}

impl Lookup<'_> {
    fn image(self) -> Result<Image, ImageError> {
        let root = self.root()?;
        let root_digest = Digest::sha256(&root);
        let (digest, manifest) = match self.parse(&root)? {
            Document::Manifest(manifest) => (root_digest.clone(), manifest),
            Document::Index(entries) => self.chosen(&entries)?,
        };
        let wanted = self.reference.digest();
        if wanted.is_some_and(|wanted| *wanted != root_digest && *wanted != digest) {
            let name = self.name.to_owned();
            return Err(ImageError::Digest {
                name,
                found: root_digest,
            });
        }
        let config = self.content(&manifest.config)?;
        let config = ConfigFile::parse(&config).map_err(|source| ImageError::Config {
            name: self.name.to_owned(),
            source: Some(source),
        })?;
        let architecture = &self.images.platform.architecture;
        if config.platform.os != "linux" || config.platform.architecture != *architecture {
            return Err(self.other_platform());
        }
        Ok(Image {
            reference: format!("{}@{digest}", self.reference.name()),
            by_tag: wanted.is_none(),
            config: config.config,
            users: None,
            digest,
            layers: manifest.layers,
            place: self.place,
        })
    }

    /// The manifest or index that the name means.
    fn root(&self) -> Result<Vec<u8>, ImageError> {
        let cached = self
            .reference
            .digest()
            .and_then(|digest| self.cached(digest));
        if let Some(bytes) = cached {
            return Ok(bytes);
        }
        (self.images.progress)(&format!("looking up {}", self.name));
        let source = self.source()?;
        let version = self.place.version();
        let root = source.root(version.as_deref()).map_err(at(self.name))?;
        self.keep(&root.digest, &root.bytes);
        Ok(root.bytes)
    }

    fn source(&self) -> Result<Source, ImageError> {
        self.place
            .source(&self.images.config)
            .map_err(at(self.name))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Document, ImageError> {
        Document::parse(bytes, None).map_err(|source| ImageError::Document {
            name: self.name.to_owned(),
            source: Box::new(source),
        })
    }

    fn other_platform(&self) -> ImageError {
        ImageError::Platform {
            name: self.name.to_owned(),
            architecture: self.images.platform.architecture.clone(),
        }
    }

    /// The manifest for the guest's platform.
    fn chosen(&self, entries: &[IndexEntry]) -> Result<(Digest, Manifest), ImageError> {
        let architecture = &self.images.platform.architecture;
        let fits = |entry: &&IndexEntry| {
            let platform = entry.platform.as_ref();
            platform.is_some_and(|own| own.os == "linux" && own.architecture == *architecture)
        };
        let entry = entries
            .iter()
            .find(fits)
            .ok_or_else(|| self.other_platform())?;
        let bytes = match self.cached(&entry.digest) {
            Some(bytes) => bytes,
            None => {
                let found = self.source()?.document(entry.digest.as_str());
                let found = found.map_err(at(self.name))?;
                let found = found.ok_or_else(|| self.other_platform())?;
                if !entry.digest.is_of(&found.bytes) {
                    return Err(ImageError::Digest {
                        name: self.name.to_owned(),
                        found: found.digest,
                    });
                }
                self.keep(&entry.digest, &found.bytes);
                found.bytes
            }
        };
        match self.parse(&bytes)? {
            Document::Manifest(manifest) => Ok((entry.digest.clone(), manifest)),
            Document::Index(_) => Err(self.other_platform()),
        }
    }

    /// A blob that is read whole: a configuration.
    fn content(&self, of: &Descriptor) -> Result<Vec<u8>, ImageError> {
        if let Some(bytes) = self.cached(&of.digest) {
            return Ok(bytes);
        }
        let refused = || ImageError::Config {
            name: self.name.to_owned(),
            source: None,
        };
        if of.size > CONFIG_BYTES_MAX {
            return Err(refused());
        }
        let mut bytes = Vec::new();
        let source = self.source()?;
        if matches!(self.place, Place::Registry(_)) {
            // A registry's blobs come from where its manifest did.
            let version = self.place.version();
            source.root(version.as_deref()).map_err(at(self.name))?;
        }
        source
            .blob(&of.digest, of.size, &mut bytes)
            .map_err(at(self.name))?;
        if !of.digest.is_of(&bytes) {
            return Err(refused());
        }
        self.keep(&of.digest, &bytes);
        Ok(bytes)
    }

    fn cached(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.images.cache.as_ref()?.content(digest)
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) {
        if let Some(cache) = &self.images.cache {
            cache.keep(digest, "content", bytes);
        }
    }
}
