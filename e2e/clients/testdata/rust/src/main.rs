//! Asks for a token for each resource on standard input by one client of Rust's.
//!
//! Usage: client CLIENT SELECTOR [VALUE], or client versions. Each line of input gets
//! one line of JSON: a token or an error. Status 3: the client has no such selector.

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use serde_json::json;
use std::{env, io, process, sync::Arc};

const CLIENT: &str = "azure_identity";

/// Azure's crate does not say which version it is, but Cargo's lock file does.
fn version() -> &'static str {
    include_str!("../Cargo.lock")
        .split("[[package]]")
        .find(|package| package.contains(&format!("\nname = {CLIENT:?}\n")))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .expect("Cargo.lock names the crate")
}

fn credential(selector: &str, value: String) -> azure_core::Result<Arc<ManagedIdentityCredential>> {
    let user_assigned_id = match selector {
        "system" => None,
        "client_id" => Some(UserAssignedId::ClientId(value)),
        "object_id" => Some(UserAssignedId::ObjectId(value)),
        "resource_id" => Some(UserAssignedId::ResourceId(value)),
        _ => process::exit(3),
    };
    ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
        user_assigned_id,
        ..Default::default()
    }))
}

async fn ask(credential: &ManagedIdentityCredential, resource: &str) -> azure_core::Result<String> {
    let scope = format!("{resource}/.default");
    let token = credential.get_token(&[&scope], None).await?;
    Ok(token.token.secret().to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = env::args().skip(1);
    let name = args.next().unwrap_or_default();
    if name == "versions" {
        return println!("{}", json!({CLIENT: version()}));
    }
    assert_eq!(name, CLIENT);
    let selector = args.next().unwrap_or_default();
    let credential = credential(&selector, args.next().unwrap_or_default());
    for line in io::stdin().lines() {
        let resource = line.expect("standard input is text");
        let answer = match &credential {
            Ok(credential) => ask(credential, &resource)
                .await
                .map_err(|fault| fault.to_string()),
            Err(fault) => Err(fault.to_string()),
        };
        match answer {
            Ok(token) => println!("{}", json!({ "token": token })),
            Err(fault) => println!("{}", json!({ "error": fault })),
        }
    }
}
