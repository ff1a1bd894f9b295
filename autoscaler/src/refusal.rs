//! What an answer of the API server means that refuses a write. Pure.
//!
//! ```text
//! an old view   the object is another by now: decided anew with the next look, nobody is told
//! refused       by validation, a policy, missing rights: the same again next time; who can mend it is told
//! ```

use kube::core::{Status, response::StatusCause};

/// All that it says where a JSON patch can't be applied, which for ours means that its `test` failed:
/// `applyJSPatch` of Kubernetes' `patch.go` answers 422 with it, and says neither which object nor
/// which operation. Validation and admission policies, which answer 422 too, name the object.
const PATCH_NOT_APPLIED: &str = "the server rejected our request due to an error in our request";

/// Cause that it names when it refuses to create anything in a namespace that is being deleted
/// (`NamespaceTerminatingCause` of Kubernetes' core/v1).
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// Cause that it names when an apply that is not forced meets what somebody else has written
/// (`CauseTypeFieldManagerConflict` of Kubernetes' meta/v1).
const OTHER_MANAGER: &str = "FieldManagerConflict";

/// The field that tells an object from the next one of its name, and that no patch can change.
const UID: &str = "metadata.uid";

/// Whether the object had changed since it was read, or is another one of its name.
pub(crate) fn is_conflict(status: &Status) -> bool {
    match status.code {
        409 => !causes(status).any(|cause| cause.reason == OTHER_MANAGER),
        422 => {
            status.message == PATCH_NOT_APPLIED || causes(status).any(|cause| cause.field == UID)
        }
        _ => false,
    }
}

/// Whether the namespace is being deleted.
pub(crate) fn is_namespace_terminating(status: &Status) -> bool {
    status.code == 403 && causes(status).any(|cause| cause.reason == NAMESPACE_TERMINATING)
}

/// Whether the same write would be refused again: who may mend that is neither the API server nor Lull.
pub(crate) fn is_lasting(status: &Status) -> bool {
    let is_told_otherwise = is_conflict(status) || is_namespace_terminating(status);
    matches!(status.code, 400 | 403 | 409 | 413 | 422) && !is_told_otherwise
}

fn causes(status: &Status) -> impl Iterator<Item = &StatusCause> {
    status.details.iter().flat_map(|details| &details.causes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What it means: an old view, a namespace that goes, or a refusal that lasts.
    fn meaning(status: &Status) -> [bool; 3] {
        [is_conflict, is_namespace_terminating, is_lasting].map(|is| is(status))
    }

    #[test]
    fn an_old_view_is_told_from_what_is_refused_for_good() {
        const OLD: [bool; 3] = [true, false, false];
        const GOING: [bool; 3] = [false, true, false];
        const REFUSED: [bool; 3] = [false, false, true];
        const NEITHER: [bool; 3] = [false; 3];
        let cause = |reason: &str, field: &str| {
            let cause = json!({ "reason": reason, "message": "", "field": field });
            json!({ "causes": [cause] })
        };
        let policy = "services \"shop\" is forbidden: ValidatingAdmissionPolicy 'ports' with binding \
                      'ports' denied request: no named ports";
        let hook = "admission webhook \"ports.example\" denied the request: no named ports";
        let rows = [
            // As Kubernetes 1.37 answers a `test` that fails.
            (422, PATCH_NOT_APPLIED, json!({}), OLD),
            (
                409,
                "the object has been modified",
                json!({ "name": "shop" }),
                OLD,
            ),
            (
                422,
                "ScaledWorkload \"shop\" is invalid",
                cause("FieldValueInvalid", UID),
                OLD,
            ),
            (403, "", cause(NAMESPACE_TERMINATING, ""), GOING),
            (
                422,
                "Service \"shop\" is invalid",
                cause("FieldValueInvalid", "spec.ports"),
                REFUSED,
            ),
            (
                422,
                policy,
                json!({ "name": "shop", "causes": [{ "message": policy }] }),
                REFUSED,
            ),
            (422, hook, json!(null), REFUSED),
            (
                409,
                "Apply failed with 1 conflict",
                cause(OTHER_MANAGER, ".spec.selector"),
                REFUSED,
            ),
            (
                403,
                "services \"shop\" is forbidden",
                json!({ "name": "shop" }),
                REFUSED,
            ),
            (403, "", json!({ "causes": [] }), REFUSED),
            (
                404,
                "services \"shop\" not found",
                json!({ "name": "shop" }),
                NEITHER,
            ),
            (429, "too many requests", json!({}), NEITHER),
            (500, "etcdserver: request timed out", json!({}), NEITHER),
        ];
        for (code, message, details, expected) in rows {
            let status = json!({ "code": code, "message": message, "details": details });
            let status: Status = serde_json::from_value(status).unwrap();
            assert_eq!(meaning(&status), expected, "{code} {message}");
        }
    }
}
