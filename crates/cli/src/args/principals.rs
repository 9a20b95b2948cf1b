//! Arguments of the commands about users and service principals.

use clap::{Args, Subcommand};
use everpoint_server::{
    access::{Role, Scope},
    catalog::SecretId,
};

use super::service::ServiceConfig;

/// Where a role holds.
#[derive(Clone, Debug)]
pub struct Place(pub Scope);

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Scope::parse(text)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password is taken from EVERPOINT_USER_PASSWORD or asked for
    Add(UserAdd),
    /// List users
    List(ServiceConfig),
    /// Give a user another password, from EVERPOINT_USER_PASSWORD or asked for
    Password(OnePrincipal),
    /// Let a user in no more, from now on
    Disable(OnePrincipal),
    /// Let a user in again
    Enable(OnePrincipal),
    /// Remove a user with all assignments
    Remove(OnePrincipal),
}

#[derive(Debug, Subcommand)]
pub enum ServicePrincipalCommand {
    /// Add a service principal and print its secret, once
    Add(ServicePrincipalAdd),
    /// List service principals and their secrets' names
    List(ServiceConfig),
    /// Give a service principal a secret more, and print it, once
    AddSecret(AddSecret),
    /// Take a secret of a service principal away
    RemoveSecret(RemoveSecret),
    /// Let a service principal in no more, from now on
    Disable(OnePrincipal),
    /// Let a service principal in again
    Enable(OnePrincipal),
    /// Remove a service principal with all assignments
    Delete(OnePrincipal),
}

#[derive(Debug, Args)]
pub struct UserAdd {
    /// What the user signs in with
    pub name: String,
    /// The user signs in at the issuer of [identity.oidc], whose tokens' claim has this value
    #[arg(long, value_name = "VALUE")]
    pub external: Option<String>,
    /// A role at the subscription, such as Reader; without one the user may do nothing yet
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub role: Option<&'static Role>,
    /// Where the role holds: /subscriptions/ID, or a resource group, an instance or a database below
    /// [default: the service's own subscription]
    #[arg(long, value_name = "PATH", requires = "role")]
    pub scope: Option<Place>,
    #[command(flatten)]
    pub config: ServiceConfig,
}

#[derive(Debug, Args)]
pub struct ServicePrincipalAdd {
    /// A name for people
    pub name: String,
    /// A role at the subscription, such as Contributor; without one it may do nothing yet
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub role: Option<&'static Role>,
    /// Where the role holds: /subscriptions/ID, or a resource group, an instance or a database below
    /// [default: the service's own subscription]
    #[arg(long, value_name = "PATH", requires = "role")]
    pub scope: Option<Place>,
    /// For how many days the secret is of use; for ever when not given
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub expires_in_days: Option<u16>,
    #[command(flatten)]
    pub config: ServiceConfig,
}

#[derive(Debug, Args)]
pub struct AddSecret {
    /// Its name, client id or object id
    pub name: String,
    /// For how many days the secret is of use; for ever when not given
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub expires_in_days: Option<u16>,
    #[command(flatten)]
    pub config: ServiceConfig,
}

#[derive(Debug, Args)]
pub struct RemoveSecret {
    /// Its name, client id or object id
    pub name: String,
    /// The secret's name, as `service-principal list` shows it
    pub secret: SecretId,
    #[command(flatten)]
    pub config: ServiceConfig,
}

#[derive(Debug, Args)]
pub struct OnePrincipal {
    /// Its name, or its object id
    pub name: String,
    #[command(flatten)]
    pub config: ServiceConfig,
}

fn role(text: &str) -> Result<&'static Role, String> {
    Role::by_name(text).ok_or_else(|| {
        let names: Vec<_> = everpoint_server::access::BUILT_IN
            .iter()
            .map(|role| role.name)
            .collect();
        format!("there is no such role. There are: {}", names.join(", "))
    })
}
