//! The messages of gRPC that are used, with those of their fields that are used. Unknown fields are skipped.
//!
//! Sources: containerd's `api/services/{containers,events,namespaces}/v1` and `api/events/container.proto` (since
//! version 1.0); `runtime.v1` of Kubernetes' CRI (`cri-api`, since Kubernetes 1.23; its events since 1.26).
#![allow(missing_docs, reason = "the fields are those of the sources above")]

use prost::Message;
use std::collections::HashMap;

/// A request without a field that is set.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// Also containerd's ListContainersRequest and SubscribeRequest: what matches one of the filters.
#[derive(Clone, PartialEq, Message)]
pub struct Filters {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// A namespace of containerd.
#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A container of containerd. Its specification, the longest part, is skipped.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(map = "string, string", tag = "2")]
    pub labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub image: String,
}

/// An event of containerd.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// Any message, as its bytes.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// ContainerCreate, ContainerUpdate and ContainerDelete of containerd.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerEvent {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// A container of the CRI.
#[derive(Clone, PartialEq, Message)]
pub struct CriContainer {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Metadata>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<Image>,
    /// 2 is CONTAINER_EXITED.
    #[prost(int32, tag = "6")]
    pub state: i32,
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
}

/// ContainerMetadata of the CRI.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// ImageSpec of the CRI.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}
