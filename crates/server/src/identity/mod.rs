//! Who somebody is: client secrets and access tokens.

mod secret;
mod token;

pub use secret::{ClientSecret, SecretHash};
pub use token::{Signer, SignerError, TOKEN_LIFETIME};
