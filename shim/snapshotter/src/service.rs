//! The ten methods, as containerd's metadata store and garbage collector use them.
//!
//! A pull never downloads a layer because `Prepare` for an unpacker answers that the
//! snapshot exists; containerd then looks it up with [`RefFilter`] and is told what it
//! asked. Both answers follow from the request alone, for every image on any node, so
//! there is nothing to lose. Trusts containerd as containerd trusts it: both are
//! the node, and the guest believes neither.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures::Stream;
use tonic::{Request, Response, Status};

use crate::{
    names::{Purpose, REF_LABEL, RefFilter},
    store::{Role, Store, StoreError, committed},
    wire::{
        CleanupRequest, CommitRequest, Empty, Info, InfoResponse, KeyRequest, ListRequest,
        ListResponse, MountsResponse, PrepareRequest, UpdateRequest, UsageResponse,
        snapshots_server::Snapshots,
    },
};

/// containerd's own batch size.
const BATCH: usize = 100;

/// The service over one store.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    store: Arc<Store>,
}

impl Snapshotter {
    /// Serves this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store: Arc::new(store),
        }
    }

    /// Runs one operation on the thread pool for blocking calls: it touches the disk.
    async fn with_store<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || operation(&store))
            .await
            .map_err(|_| Status::internal("an operation on the snapshots panicked"))?
            .map_err(|error| status(&error))
    }

    async fn add(&self, request: PrepareRequest, role: Role) -> Result<MountsResponse, Status> {
        let PrepareRequest {
            key,
            parent,
            labels,
            ..
        } = request;
        tracing::debug!(snapshot.key = %key, snapshot.parent = %parent, ?role, "new snapshot");
        self.with_store(move |store| store.add(&key, role, &parent, labels))
            .await
            .map(|mounts| MountsResponse { mounts })
    }
}

#[tonic::async_trait]
impl Snapshots for Snapshotter {
    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let request = request.into_inner();
        let purpose = Purpose::of(&request.key, &request.labels)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let role = match purpose {
            Purpose::Layer(chain) => {
                tracing::debug!(%chain, "layer stays where it is");
                return Err(Status::already_exists(format!("snapshot {chain} exists")));
            }
            Purpose::Unpack => Role::Unpack,
            Purpose::ImageVolume => return Err(no_image_volumes(&request.key)),
            Purpose::Container => Role::Container,
        };
        self.add(request, role).await.map(Response::new)
    }

    async fn view(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let request = request.into_inner();
        if Purpose::of(&request.key, &BTreeMap::new()) == Ok(Purpose::ImageVolume) {
            return Err(no_image_volumes(&request.key));
        }
        self.add(request, Role::View).await.map(Response::new)
    }

    async fn mounts(
        &self,
        request: Request<KeyRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let key = request.into_inner().key;
        let mounts = self.with_store(move |store| store.mounts(&key)).await?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<Empty>, Status> {
        let CommitRequest { name, key, .. } = request.into_inner();
        self.with_store(move |store| store.commit(&name, &key))
            .await?;
        Ok(Response::new(Empty {}))
    }

    async fn remove(&self, request: Request<KeyRequest>) -> Result<Response<Empty>, Status> {
        let key = request.into_inner().key;
        self.with_store(move |store| store.remove(&key)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn stat(&self, request: Request<KeyRequest>) -> Result<Response<InfoResponse>, Status> {
        let key = request.into_inner().key;
        let info = self.with_store(move |store| store.stat(&key)).await?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<InfoResponse>, Status> {
        let request = request.into_inner();
        let info = request
            .info
            .ok_or_else(|| Status::invalid_argument("update without a snapshot"))?;
        let paths = request.update_mask.unwrap_or_default().paths;
        let only = named_labels(&paths)?;
        let info = self
            .with_store(move |store| store.update(&info.name, info.labels, only.as_deref()))
            .await?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<ListResponse, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        let found = if filters.is_empty() {
            self.with_store(|store| Ok(store.list())).await?
        } else {
            filters
                .iter()
                .map(|f| looked_up(f))
                .collect::<Result<_, _>>()?
        };
        let batches: Vec<_> = found
            .chunks(BATCH)
            .map(|batch| {
                Ok(ListResponse {
                    info: batch.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(batches))))
    }

    async fn usage(&self, request: Request<KeyRequest>) -> Result<Response<UsageResponse>, Status> {
        let key = request.into_inner().key;
        // What a container writes is in its VM: the node stores nothing for it.
        self.with_store(move |store| store.stat(&key)).await?;
        Ok(Response::new(UsageResponse { size: 0, inodes: 0 }))
    }

    async fn cleanup(&self, _request: Request<CleanupRequest>) -> Result<Response<Empty>, Status> {
        self.with_store(|store| {
            store.sweep();
            Ok(())
        })
        .await?;
        Ok(Response::new(Empty {}))
    }
}

/// The committed snapshot that containerd looks for after `Prepare` said it exists.
fn looked_up(filter: &str) -> Result<Info, Status> {
    let RefFilter { target, parent } = RefFilter::parse(filter).ok_or_else(|| {
        Status::invalid_argument(format!(
            "filter {filter} is not understood: only the lookup of a layer's snapshot is"
        ))
    })?;
    let labels = BTreeMap::from([(REF_LABEL.to_owned(), target.to_string())]);
    Ok(committed(target.as_str(), &parent, labels))
}

/// The labels that an update names, or `None` for all of them.
fn named_labels(paths: &[String]) -> Result<Option<Vec<String>>, Status> {
    if paths.is_empty() || paths.iter().any(|p| p == "labels") {
        return Ok(None);
    }
    let label = |path: &String| {
        path.strip_prefix("labels.")
            .map(str::to_owned)
            .ok_or_else(|| {
                Status::invalid_argument(format!("field {path} of a snapshot cannot be changed"))
            })
    };
    paths.iter().map(label).collect::<Result<_, _>>().map(Some)
}

fn no_image_volumes(key: &str) -> Status {
    Status::failed_precondition(format!(
        "cannot show an image at {key}: its layers are not on this node, only in VMs; \
         use the image as a container or mount another kind of volume"
    ))
}

/// The gRPC status that containerd expects for each failure.
fn status(error: &StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::NotFound(_) => Status::not_found(message),
        StoreError::Exists(_) => Status::already_exists(message),
        StoreError::Parent { .. } | StoreError::CommitName { .. } => {
            Status::invalid_argument(message)
        }
        StoreError::InUse(..) | StoreError::NotAnUnpack(_) => Status::failed_precondition(message),
        StoreError::Io { .. } => {
            tracing::error!(%error, "state directory failed");
            Status::unavailable(message)
        }
    }
}
