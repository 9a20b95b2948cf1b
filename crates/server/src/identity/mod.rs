//! Who somebody is: client secrets and passwords, access tokens, tokens of another issuer.

mod oidc;
mod secret;
mod token;

pub use oidc::{External, FetchError, Issuer, external};
pub use secret::{ClientSecret, SecretHash};
pub use token::{Signer, SignerError, TOKEN_LIFETIME};
