//! What a kubelet does: pull, sandbox, container, all over the container runtime interface.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spandrel_fixtures::peers::Containerd;
use spandrel_proto::cri::image_service_client::ImageServiceClient;
use spandrel_proto::cri::runtime_service_client::RuntimeServiceClient;
use spandrel_proto::cri::{self, NamespaceMode};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Longest that CRI may take to be ready after a start, and after the snapshotter's.
const READY: Duration = Duration::from_secs(30);

/// Longest that a command in a container may take, in seconds: longer than any read waits here.
const EXEC_SECONDS: i64 = 120;

pub struct Cri {
    images: ImageServiceClient<Channel>,
    runtime: RuntimeServiceClient<Channel>,
    logs: PathBuf,
}

/// A running container in a sandbox of its own.
pub struct Container {
    id: String,
    sandbox: String,
}

/// How a command in a container ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

fn image(reference: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: reference.to_owned(), ..Default::default() }
}

impl Cri {
    pub async fn connect(socket: &Path, dir: &Path) -> Self {
        let channel = spandrel_proto::connect(socket).await.expect("containerd answers");
        let logs = dir.join("pods");
        let mut cri = Self {
            images: ImageServiceClient::new(channel.clone()),
            runtime: RuntimeServiceClient::new(channel),
            logs,
        };
        // The services come up one after the other.
        let ready = async {
            while cri.images.list_images(cri::ListImagesRequest::default()).await.is_err()
                || cri.runtime.version(cri::VersionRequest::default()).await.is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(READY, ready).await.expect("CRI is ready");
        cri
    }

    /// Pulls an image, and waits meanwhile for containerd to reach a snapshotter that was just started.
    pub async fn pull(&mut self, reference: &str) -> Result<String, Status> {
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            let request = cri::PullImageRequest { image: Some(image(reference)), ..Default::default() };
            match self.images.pull_image(request).await {
                Ok(pulled) => return Ok(pulled.into_inner().image_ref),
                Err(status) if connecting(&status) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => return Err(status),
            }
        }
    }

    pub async fn remove_image(&mut self, reference: &str) {
        let request = cri::RemoveImageRequest { image: Some(image(reference)) };
        self.images.remove_image(request).await.expect("the image is removed");
    }

    /// Starts a container that sleeps, in a sandbox on the host's network; waits meanwhile for containerd to reach a
    /// snapshotter that was just started, as a kubelet tries again.
    pub async fn start(&mut self, reference: &str) -> Result<Container, Status> {
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            match self.try_start(reference).await {
                Err(status) if connecting(&status) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result,
            }
        }
    }

    async fn try_start(&mut self, reference: &str) -> Result<Container, Status> {
        let name = Containerd::unique_id("pod");
        let namespaces = cri::NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() };
        let log_directory = self.logs.join(&name);
        std::fs::create_dir_all(&log_directory).expect("a directory for logs");
        let sandbox_config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: log_directory.to_str().expect("UTF-8").to_owned(),
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request =
            cri::RunPodSandboxRequest { config: Some(sandbox_config.clone()), ..Default::default() };
        let sandbox = self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(image(reference)),
            command: [
                "/bin/sh",
                "-c",
                "trap 'exit 0' TERM; echo started; while :; do sleep 3600 & wait $!; done",
            ]
            .map(str::to_owned)
            .to_vec(),
            log_path: "main.log".to_owned(),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let id = match self.runtime.create_container(request).await {
            Ok(created) => created.into_inner().container_id,
            Err(status) => {
                self.stop_sandbox(sandbox).await;
                return Err(status);
            }
        };
        self.runtime.start_container(cri::StartContainerRequest { container_id: id.clone() }).await?;
        Ok(Container { id, sandbox })
    }

    /// Runs a shell command in a container.
    pub async fn exec(&mut self, container: &Container, script: &str) -> Ran {
        let request = cri::ExecSyncRequest {
            container_id: container.id.clone(),
            cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: EXEC_SECONDS,
        };
        let ran = self.runtime.exec_sync(request).await.expect("the command runs").into_inner();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: ran.exit_code, out: text(ran.stdout), err: text(ran.stderr) }
    }

    /// Runs a shell command in a container that has to succeed, and returns what it printed.
    pub async fn output(&mut self, container: &Container, script: &str) -> String {
        let ran = self.exec(container, script).await;
        assert_eq!(ran.code, 0, "{script}: {ran:?}");
        ran.out
    }

    /// Ends a container and its sandbox.
    pub async fn stop(&mut self, container: Container) {
        let request = cri::StopContainerRequest { container_id: container.id.clone(), timeout: 5 };
        self.runtime.stop_container(request).await.expect("the container is stopped");
        let request = cri::RemoveContainerRequest { container_id: container.id };
        self.runtime.remove_container(request).await.expect("the container is removed");
        self.stop_sandbox(container.sandbox).await;
    }

    async fn stop_sandbox(&mut self, sandbox: String) {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        self.runtime.stop_pod_sandbox(request).await.expect("the sandbox is stopped");
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox };
        self.runtime.remove_pod_sandbox(request).await.expect("the sandbox is removed");
    }
}

/// Whether containerd has not reached the snapshotter again yet.
fn connecting(status: &Status) -> bool {
    let text = status.message();
    // The first three are said while nobody is there, the others by a call over the former daemon's connection.
    let lost = [
        "connection refused",
        "connection error",
        "no such file",
        "connection closed",
        "connection reset",
        "broken pipe",
        "error reading from server",
    ];
    matches!(status.code(), Code::Unavailable | Code::Unknown) && lost.iter().any(|word| text.contains(word))
}
