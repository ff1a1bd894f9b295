//! Deleting what is ours: only as it was read.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    core::DeserializeGuard,
};
use serde::de::DeserializeOwned;

use super::Task;
use crate::{context::WriteError, purpose::Purpose};

/// Deletes only what was read: not what another workload has taken over since, or has made anew
/// under the same name.
fn as_read(object: &impl Resource) -> DeleteParams {
    let metadata = object.meta();
    DeleteParams::default().preconditions(Preconditions {
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
    })
}

// === impl Task ===

impl Task {
    /// Deletes one of our objects, as it was read; that it is gone already is as good.
    ///
    /// One that has changed since is left: the cache is about to show it, and the next look decides.
    pub(super) async fn remove<K>(&self, object: &K, what: Purpose) -> Result<(), WriteError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let name = object.name_any();
        // The answer is the object, which need not be one that can be read.
        let api = self.api::<DeserializeGuard<K>>();
        self.remove_from(&api, (&name, as_read(object)), what).await
    }

    /// The same by name, of a kind that is known only while this runs.
    pub(super) async fn remove_from<K>(
        &self,
        api: &Api<K>,
        (name, params): (&str, DeleteParams),
        what: Purpose,
    ) -> Result<(), WriteError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match self.call(what, api.delete(name, &params)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_deleted_is_what_was_read() {
        let metadata = json!({ "name": "shop-lull", "uid": "u-1", "resourceVersion": "7" });
        let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": [] });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let preconditions = as_read(&slice).preconditions.unwrap();
        assert_eq!(preconditions.uid.as_deref(), Some("u-1"));
        assert_eq!(preconditions.resource_version.as_deref(), Some("7"));
    }
}
