//! Images that are not to be had: which image, which of its layers, at which registry, in
//! which phase. What a registry adds in its own words is not told, nor what a file in a
//! layer is called: of an encrypted image that is nobody's business.

use agent_containers::{ImagesError, RootError};
use agent_image::{ConfigError, LayerFailure, OwnerConfigError, PullError, PullFailure};
use agent_image_registry::{FetchError, Over, RegistryError, ResolveError};
use agent_image_signatures::{RequirementFailure, SignatureError};
use agent_image_unpacking::{AssembleError, LayerError, SettleError, StoreError, TreeError};

use crate::told::{
    disk,
    field::{Field, FromHost},
    keys,
    measured::note,
    text::Told,
};

/// A root file system that cannot be made.
pub(super) fn root(error: &RootError) -> Told {
    match error {
        RootError::Reference { text, .. } => Told::new("'{image_text}' is not an image reference")
            .with(Field::image_text(FromHost(text))),
        RootError::Images(error) => images(error),
        RootError::Full { place, source } => disk::full(place).because(root(source)),
        RootError::Pull(error) => pull(error),
        RootError::Assemble(error) => assemble(error),
        RootError::Log(error) => Told::new("the image cannot be measured").because(note(error)),
        RootError::Pause(error) => {
            Told::new("cannot make the pause container's root file system").errno(error)
        }
    }
}

fn images(error: &ImagesError) -> Told {
    match error {
        ImagesError::Config(error) => Told::new("images cannot be pulled").because(config(error)),
        ImagesError::Owner(error) => owner(error),
        ImagesError::Scratch(error) => disk::scratch(error),
    }
}

fn config(error: &ConfigError) -> Told {
    match error {
        ConfigError::Roots { source, .. } => {
            Told::new("the root certificates cannot be read").errno(source)
        }
        ConfigError::Store(error) => {
            Told::new("the image store cannot be opened").because(store(error))
        }
        _ => Told::new("the registry connection cannot be set up"),
    }
}

/// What the owner's initdata says about images, told by the key of `cdh.toml` that is meant.
fn owner(error: &OwnerConfigError) -> Told {
    match error {
        OwnerConfigError::Toml(_) => Told::new("initdata's cdh.toml cannot be read"),
        OwnerConfigError::Broker(_) => Told::new(
            "initdata's cdh.toml names a key broker client that this agent does not know: it \
             knows cc_kbc and offline_fs_kbc",
        ),
        OwnerConfigError::NoAddress => Told::new(
            "initdata's cdh.toml names the key broker client cc_kbc, but no aa.toml says where the \
             broker is",
        ),
        OwnerConfigError::Offline { file, .. } => {
            Told::new("initdata's {what} cannot be used").with(Field::what(file))
        }
        OwnerConfigError::Read { source, .. } => {
            Told::new("an entry of initdata cannot be read").errno(source)
        }
        OwnerConfigError::Uri { key, .. } => Told::new(
            "`{what}` of initdata's cdh.toml is neither a `kbs:///` URI nor a file of initdata",
        )
        .with(Field::what(key)),
        OwnerConfigError::NotResource { key } => Told::new(
            "`{what}` of initdata's cdh.toml is not a `kbs:///` URI; a private key comes from \
             the key broker only",
        )
        .with(Field::what(key)),
        OwnerConfigError::Absent { key, .. } => {
            Told::new("`{what}` of initdata's cdh.toml names an entry that initdata does not have")
                .with(Field::what(key))
        }
        OwnerConfigError::NoBroker { key } => Told::new(
            "`{what}` of initdata's cdh.toml is a resource, but `[kbc]` names no key broker",
        )
        .with(Field::what(key)),
        OwnerConfigError::Fetch { key, source } => {
            Told::new("`{what}` of initdata's cdh.toml cannot be fetched")
                .with(Field::what(key))
                .because(keys::key(source))
        }
        OwnerConfigError::Credentials(_) => {
            Told::new("the registry credentials that initdata names cannot be used")
        }
        OwnerConfigError::Registries(_) => {
            Told::new("the registry configuration that initdata names cannot be used")
        }
        OwnerConfigError::Policy(_) => {
            Told::new("the signature policy that initdata names cannot be used")
        }
        OwnerConfigError::Lookaside(_) => {
            Told::new("the signature store configuration that initdata names cannot be used")
        }
        OwnerConfigError::Text(key) => {
            Told::new("what `{what}` of initdata's cdh.toml names is no text")
                .with(Field::what(key))
        }
    }
}

fn pull(error: &PullError) -> Told {
    Told::new("cannot pull {image}")
        .with(Field::image(error.image()))
        .because(failure(error.cause()))
}

fn failure(error: &PullFailure) -> Told {
    match error {
        PullFailure::Registry(RegistryError::Blocked(_)) => {
            Told::new("its registry is blocked by configuration")
        }
        PullFailure::Registry(_) => {
            Told::new("the configured location of its registry is not `host[:port][/path]`")
        }
        PullFailure::Resolve(error) => resolve(error),
        PullFailure::Signature(error) => signature(error),
        PullFailure::Layer {
            number,
            count,
            digest,
            cause,
        } => Told::new("layer {layer} of {count} ({digest}) is not usable")
            .with(Field::layer(*number))
            .with(Field::count(*count))
            .with(Field::digest(digest))
            .because(layer_failure(cause)),
        _ => Told::new("a step of the pull failed"),
    }
}

fn resolve(error: &ResolveError) -> Told {
    match error {
        ResolveError::Fetch { what, source } => Told::new("its {what} cannot be fetched")
            .with(Field::what(what))
            .because(fetch(source)),
        ResolveError::Digest {
            what,
            expected,
            found,
        } => Told::new(
            "the digest of its {what} does not match: {expected} was asked for, the registry \
             sent {found}; ask who changed it",
        )
        .with(Field::what(what))
        .with(Field::expected(expected))
        .with(Field::found(found)),
        ResolveError::StatedDigest { what, .. } => {
            Told::new("the registry states another digest for its {what} than it has")
                .with(Field::what(what))
        }
        ResolveError::Size {
            what,
            expected,
            found,
        } => Told::new("its {what} has {bytes} bytes, but {stated} are stated")
            .with(Field::what(what))
            .with(Field::bytes(*found))
            .with(Field::stated(*expected)),
        ResolveError::Document { what, .. } => {
            Told::new("its {what} cannot be used").with(Field::what(what))
        }
        ResolveError::Platform { .. } => Told::new("it has no image for this guest's platform"),
        ResolveError::NestedIndex => {
            Told::new("its index refers to another index, which is not supported")
        }
        ResolveError::ConfigType(_) => {
            Told::new("the media type of its configuration says that it is not a container image")
        }
        ResolveError::Config(_) => Told::new("its configuration cannot be read"),
        ResolveError::ConfigPlatform { .. } => {
            Told::new("its configuration is for another platform than this guest's")
        }
        ResolveError::LayerCount { .. } => {
            Told::new("its manifest has another number of layers than its configuration")
        }
        _ => Told::new("its manifest or configuration cannot be used"),
    }
}

fn fetch(error: &FetchError) -> Told {
    match error {
        FetchError::Unreachable { origin, .. } => at(
            "cannot get an answer from {registry}; check the registry's name and port, its \
             certificate and the network",
            origin,
        ),
        FetchError::Deadline(limit) => Told::new(
            "the pull did not finish within {seconds} seconds; check the network or raise the \
             limit",
        )
        .with(Field::seconds(limit.as_secs())),
        FetchError::Cancelled => Told::new("another part of the pull failed"),
        FetchError::NotFound { origin, what, .. } => at(
            "{registry} has no such {what}; check the image's name and tag",
            origin,
        )
        .with(Field::what(what)),
        FetchError::Denied { origin, advice, .. } => {
            at("{registry} refuses access", origin).because(Told::new(advice))
        }
        FetchError::Status { origin, status, .. } => {
            at("{registry} answers with status {status}", origin).with(Field::status(*status))
        }
        FetchError::TooManyRedirects(origin) => at("{registry} redirects too many times", origin),
        FetchError::BadRedirect { origin, reason, .. } => at(
            "{registry} redirects to where the guest does not follow",
            origin,
        )
        .because(Told::new(reason)),
        FetchError::Token { origin, reason, .. } => at(
            "{registry} wants a token from a server that cannot be used",
            origin,
        )
        .because(Told::new(reason)),
        _ => transfer(error),
    }
}

/// Bytes that are too few, too many or others than were asked for.
fn transfer(error: &FetchError) -> Told {
    match error {
        FetchError::Broken {
            origin,
            received,
            size,
            ..
        } => at(
            "the transfer from {registry} failed after {bytes} of {stated} bytes",
            origin,
        )
        .with(Field::bytes(*received))
        .with(Field::stated(*size)),
        FetchError::TooLong {
            origin,
            what,
            limit,
        } => at(
            "{registry} sends more than {limit} bytes where a {what} was expected",
            origin,
        )
        .with(Field::limit(*limit))
        .with(Field::what(what)),
        FetchError::Size {
            origin,
            expected,
            found,
        } => at(
            "{registry} announces {bytes} bytes, but the manifest says {stated}",
            origin,
        )
        .with(Field::bytes(*found))
        .with(Field::stated(*expected)),
        FetchError::Longer { origin, expected } => at(
            "{registry} sends more than the {stated} bytes that the manifest says",
            origin,
        )
        .with(Field::stated(*expected)),
        FetchError::Shorter {
            origin,
            received,
            expected,
        } => at(
            "{registry} has no more than {bytes} bytes, but the manifest says {stated}",
            origin,
        )
        .with(Field::bytes(*received))
        .with(Field::stated(*expected)),
        FetchError::Range { origin, .. } => at(
            "{registry} was asked to continue a transfer and answers with another part",
            origin,
        ),
        _ => Told::new("a transfer failed"),
    }
}

fn at(text: &'static str, registry: &str) -> Told {
    Told::new(text).with(Field::registry(registry))
}

fn signature(error: &SignatureError) -> Told {
    let cause = match error.cause() {
        RequirementFailure::Rejected => Told::new("it rejects every image"),
        RequirementFailure::Key { .. } => Told::new("its key cannot be used"),
        RequirementFailure::NoLookaside => Told::new(
            "no lookaside store is configured for the image, so there is nowhere to look for \
             its signatures",
        ),
        RequirementFailure::Unsigned(_) => Told::new("the image has no signature"),
        RequirementFailure::Refused(refused) => {
            let told = Told::new("none of its {count} signatures is acceptable")
                .with(Field::count(refused.len()));
            match refused.first() {
                Some(first) => told.because(Told::new(first.told)),
                None => told,
            }
        }
        RequirementFailure::Fetch(error) => {
            Told::new("its signatures cannot be fetched").because(fetch(error))
        }
        RequirementFailure::Clock => Told::new("the clock is before 1970"),
        _ => Told::new("a requirement is not met"),
    };
    Told::new("the signature policy does not accept it").because(cause)
}

fn layer_failure(error: &LayerFailure) -> Told {
    match error {
        LayerFailure::Layer(error) => layer(error),
        LayerFailure::Store(error) => store(error),
        LayerFailure::Settle(error) => settle(error),
        LayerFailure::Wait(why) => Told::new("it was waited for in vain").because(over(why)),
        _ => Told::new("a step of its unpacking failed"),
    }
}

fn over(why: &Over) -> Told {
    match why {
        Over::Late(limit) => {
            Told::new("the time for the whole pull, {seconds} seconds, is over; raise the limit")
                .with(Field::seconds(limit.as_secs()))
        }
        Over::Cancelled => Told::new("another part of the pull failed"),
    }
}

fn layer(error: &LayerError) -> Told {
    match error {
        LayerError::MediaType(_) => Told::new("its media type is not a layer's"),
        LayerError::NoKeys => Told::new("it is encrypted, and this pull has no keys"),
        LayerError::Key(error) => {
            Told::new("it is encrypted, and its key cannot be had").because(keys::layer_key(error))
        }
        LayerError::Mac => Told::new(
            "its HMAC does not match: the encrypted layer was changed, or its key belongs to \
             another layer",
        ),
        LayerError::InnerDigestText(_) => {
            Told::new("the digest wrapped with its key cannot be read")
        }
        LayerError::InnerDigest { .. } => {
            Told::new("it does not decrypt to what was encrypted: its digest does not match")
        }
        LayerError::Fetch(error) => Told::new("it cannot be downloaded").because(fetch(error)),
        LayerError::BlobDigest { expected, found } => Told::new(
            "its blob digest does not match: the manifest says {expected}, the registry sent \
             {found}; push the image again or ask who changed it",
        )
        .with(Field::expected(expected))
        .with(Field::found(found)),
        LayerError::Inflate(_) => {
            Told::new("it cannot be decompressed; the image is broken as pushed")
        }
        LayerError::TooLarge(limit) => Told::new(
            "it unpacks to more than {limit} bytes, which is this guest's limit for a layer",
        )
        .with(Field::limit(*limit)),
        LayerError::DiffId { .. } => {
            Told::new("its diff id does not match; the image is broken as pushed")
        }
        LayerError::Tree(error) => Told::new("it cannot be unpacked").because(tree(error)),
        LayerError::Thread(error) => Told::new("cannot start a thread for it").errno(error),
        LayerError::Stopped(why) => Told::new("its unpacking was not finished").because(over(why)),
        _ => Told::new("it is not usable"),
    }
}

fn tree(error: &TreeError) -> Told {
    match error {
        TreeError::Tar { .. } => Told::new("its archive cannot be read"),
        TreeError::DotDot(_) => {
            Told::new("an entry has a `..` in its name, which no layer may have")
        }
        TreeError::Whiteout(_) | TreeError::FalseWhiteout(_) => {
            Told::new("an entry is a whiteout that names no file")
        }
        TreeError::LinkTarget { .. } => {
            Told::new("an entry is a hard link to what is not in the image")
        }
        TreeError::TooManyLinks(_) => Told::new("an entry lies behind too many symbolic links"),
        TreeError::NotADirectory(_) => {
            Told::new("an entry lies below something that is not a directory")
        }
        TreeError::TooManyNotes => {
            Told::new("it names too many files in directories that it does not state")
        }
        TreeError::Full { .. } => Told::new("the image store is full"),
        TreeError::System { step, source, .. } => Told::new("cannot {step} an entry")
            .with(Field::step(step))
            .errno(&(*source).into()),
    }
}

fn settle(error: &SettleError) -> Told {
    match error {
        SettleError::View(_) => Told::new("the layers below it cannot be looked at"),
        SettleError::Tree(error) => {
            Told::new("it cannot be fitted onto the layers below it").because(tree(error))
        }
        SettleError::LinkTarget { .. } => {
            Told::new("an entry is a hard link to what is no file of the image")
        }
        SettleError::Conflict(_) => Told::new("an entry is there twice"),
        SettleError::TooManyLinks(_) => {
            Told::new("an entry lies behind too many symbolic links of the layers below")
        }
        SettleError::Stopped(why) => {
            Told::new("fitting it onto the layers below it was not finished").because(over(why))
        }
        _ => Told::new("it does not fit onto the layers below it"),
    }
}

fn store(error: &StoreError) -> Told {
    match error {
        StoreError::System { step, source, .. } => Told::new("cannot {step} in the image store")
            .with(Field::step(step))
            .errno(source),
        StoreError::InUse(_) => Told::new("the image store is in use by another process"),
        StoreError::Unfit { what, .. } => Told::new(
            "the image store cannot hold layers ({what}); it needs root and a file system such \
             as ext4, xfs or tmpfs",
        )
        .with(Field::what(what)),
        _ => Told::new("the image store cannot be used"),
    }
}

fn assemble(error: &AssembleError) -> Told {
    match error {
        AssembleError::Store(error) => {
            Told::new("cannot make room for the container's changes").because(store(error))
        }
        AssembleError::MountPoint { source, .. } => {
            Told::new("cannot make the mount point of the image").errno(source)
        }
        AssembleError::Root(error) => {
            Told::new("cannot set the attributes of the root directory").because(tree(error))
        }
        AssembleError::Mount(_) => Told::new("cannot mount the image's layers"),
        AssembleError::Remove { source, .. } => {
            Told::new("cannot remove the container's changes").errno(source)
        }
        _ => Told::new("the image cannot be assembled"),
    }
}
