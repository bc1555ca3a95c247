//! Stands in for containerd's content store: at the time of a pull it has the image's manifest and configuration, and that
//! is all that the daemon asks it for.

use std::collections::BTreeMap;
use std::path::Path;

use spandrel_fixtures::image::Image;
use spandrel_proto::containerd::services::content::v1 as api;
use spandrel_proto::containerd::services::content::v1::content_server::{Content, ContentServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Blobs by digest.
pub struct Store(BTreeMap<String, Vec<u8>>);

/// A list of answers as a stream.
type Answers<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

impl Store {
    /// What containerd has fetched of `image` before it asks for a layer.
    pub fn of(image: &Image) -> Self {
        let blobs =
            [(image.digest(), image.manifest.to_vec()), (image.config_digest(), image.config.to_vec())];
        Self(BTreeMap::from(blobs))
    }

    /// Serves at `socket` until the test's runtime ends.
    pub fn serve(self, socket: &Path) {
        let listener = UnixListener::bind(socket).expect("a socket");
        let server = tonic::transport::Server::builder().add_service(ContentServer::new(self));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    }
}

/// What nobody asks for here.
fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only Read is there"))
}

#[tonic::async_trait]
impl Content for Store {
    type ListStream = Answers<api::ListContentResponse>;
    type ReadStream = Answers<api::ReadContentResponse>;
    type WriteStream = Answers<api::WriteContentResponse>;

    async fn read(
        &self,
        request: Request<api::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let digest = request.into_inner().digest;
        let data = self.0.get(&digest).ok_or_else(|| Status::not_found(digest))?.clone();
        let answers = vec![Ok(api::ReadContentResponse { offset: 0, data })];
        Ok(Response::new(tokio_stream::iter(answers)))
    }

    async fn info(&self, _: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        no()
    }

    async fn update(&self, _: Request<api::UpdateRequest>) -> Result<Response<api::UpdateResponse>, Status> {
        no()
    }

    async fn list(&self, _: Request<api::ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        no()
    }

    async fn delete(&self, _: Request<api::DeleteContentRequest>) -> Result<Response<()>, Status> {
        no()
    }

    async fn status(&self, _: Request<api::StatusRequest>) -> Result<Response<api::StatusResponse>, Status> {
        no()
    }

    async fn list_statuses(
        &self,
        _: Request<api::ListStatusesRequest>,
    ) -> Result<Response<api::ListStatusesResponse>, Status> {
        no()
    }

    async fn write(
        &self,
        _: Request<tonic::Streaming<api::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        no()
    }

    async fn abort(&self, _: Request<api::AbortRequest>) -> Result<Response<()>, Status> {
        no()
    }
}
