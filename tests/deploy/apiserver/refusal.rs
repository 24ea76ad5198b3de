//! Why a request is refused, as kubectl prints it.

use serde_json::{Value, json};

#[derive(Debug)]
pub struct Refusal {
    pub code: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { code: 400, reason: "BadRequest", message: message.into() }
    }

    pub fn not_found(what: &str) -> Refusal {
        Refusal { code: 404, reason: "NotFound", message: format!("{what} not found") }
    }

    pub fn already_exists(what: &str) -> Refusal {
        Refusal { code: 409, reason: "AlreadyExists", message: format!("{what} already exists") }
    }

    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal { code: 422, reason: "Invalid", message: message.into() }
    }

    pub fn unsupported(what: &str) -> Refusal {
        Refusal { code: 415, reason: "UnsupportedMediaType", message: format!("{what} is not supported here") }
    }

    pub fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.code,
        })
    }
}
