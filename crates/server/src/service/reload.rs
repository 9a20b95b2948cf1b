//! Taking up a changed configuration while the service runs.

use std::{
    mem,
    sync::{Arc, PoisonError},
};

use super::{Service, observe};
use crate::{
    audit::Outcome,
    config::{Config, InstanceConfig, OidcKeys, SecretError},
    http::tls::{Tls, TlsError},
    identity::{FetchError, Issuer},
};

/// What a new configuration changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values hold from now on.
    pub changed: Vec<&'static str>,
    /// Keys whose old values hold until the service is started again.
    pub waiting: Vec<&'static str>,
}

impl Service {
    /// Takes up a configuration: schedules, limits, the certificate, other issuers. What cannot change while the
    /// service runs stays as it is.
    ///
    /// # Errors
    /// When the certificate cannot be used; then nothing changes.
    pub fn reload(&self, mut new: Config) -> Result<Reloaded, TlsError> {
        let old = self.settings();
        let mut reloaded = Reloaded::default();
        let is_known = |name: &str| {
            let name = name.parse().ok();
            name.is_some_and(|name| self.instance(&name).is_some())
        };
        keep(&old, &mut new, is_known, &mut reloaded.waiting);
        // Read anew even when it is named as before: its files may be others.
        let tls = Tls::new(&new)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls.server;
        let mut changed = |key, changed| {
            if changed {
                reloaded.changed.push(key);
            }
        };
        changed("backups", new.backups != old.backups);
        changed("restores", new.restores != old.restores);
        changed("instances", new.instances != old.instances);
        changed("limits", new.limits != old.limits);
        changed("tls", new.tls != old.tls);
        changed("log", new.log != old.log);
        changed("identity", new.identity != old.identity);
        let oidc = new.identity.oidc.clone();
        if oidc != old.identity.oidc {
            let issuer = oidc.map(|config| Arc::new(Issuer::new(config)));
            *self.issuer.write().unwrap_or_else(PoisonError::into_inner) = issuer;
        }
        for observed in self.instances() {
            // A window that was checked is one for every instance.
            if let Ok(schedule) = observe::schedule(&new.backups, &observed.name) {
                self.change_instance(&observed.name, |observed| observed.schedule = schedule);
            }
        }
        self.settings.send_replace(Arc::new(new));
        self.wake_scheduler();
        let detail = format!("changed: {}", reloaded.changed.join(", "));
        self.audit_own("reload", "service", Outcome::Done, Some(detail));
        Ok(reloaded)
    }
}

/// Puts the old values of what cannot change into the new configuration, and names those that differ.
fn keep(
    old: &Config,
    new: &mut Config,
    is_known: impl Fn(&str) -> bool,
    waiting: &mut Vec<&'static str>,
) {
    fn one<T: Clone + PartialEq>(
        key: &'static str,
        old: &T,
        new: &mut T,
        waiting: &mut Vec<&'static str>,
    ) {
        if mem::replace(new, old.clone()) != *old {
            waiting.push(key);
        }
    }
    one("listen", &old.listen, &mut new.listen, waiting);
    one("public_url", &old.public_url, &mut new.public_url, waiting);
    let (before, after) = (&old.state_directory, &mut new.state_directory);
    one("state_directory", before, after, waiting);
    one("catalog", &old.catalog, &mut new.catalog, waiting);
    let (before, after) = (&old.catalog_password_file, &mut new.catalog_password_file);
    one("catalog_password_file", before, after, waiting);
    one("location", &old.location, &mut new.location, waiting);
    let (before, after) = (&old.resource_group, &mut new.resource_group);
    one("resource_group", before, after, waiting);
    // Rights are held by places: those of instances that are there, and of those that may have left copies, stay.
    let is_placed = |instance: &InstanceConfig| {
        instance.resource_group.is_some() || instance.subscription.is_some()
    };
    for (name, before) in old.instances.iter().filter(|(_, before)| is_placed(before)) {
        new.instances
            .entry(name.clone())
            .or_insert_with(|| InstanceConfig {
                resource_group: before.resource_group.clone(),
                subscription: before.subscription,
                ..InstanceConfig::default()
            });
    }
    for (name, instance) in &mut new.instances {
        if !old.instances.contains_key(name) && !is_known(name) {
            continue;
        }
        let before = old.instances.get(name).cloned().unwrap_or_default();
        let (group, subscription) = (&mut instance.resource_group, &mut instance.subscription);
        one(
            "instances.NAME.resource_group",
            &before.resource_group,
            group,
            waiting,
        );
        one(
            "instances.NAME.subscription",
            &before.subscription,
            subscription,
            waiting,
        );
    }
    let (before, after) = (&old.restores.scratch, &mut new.restores.scratch);
    one("restores.scratch", before, after, waiting);
    one("repository", &old.repository, &mut new.repository, waiting);
}

/// Checks what a configuration names: secrets, certificates, an issuer's keys where they lie in a file.
///
/// # Errors
/// The first thing that cannot be used.
pub async fn check(config: &Config) -> Result<(), CheckError> {
    config.repository.secret.read()?;
    config.catalog_address()?;
    for instance in config.instances.values() {
        instance.admin_connection()?;
    }
    if config.tls.is_some() {
        Tls::new(config)?;
    }
    if let Some(oidc) = &config.identity.oidc
        && matches!(oidc.keys, OidcKeys::File(_))
    {
        Issuer::new(oidc.clone()).ask().await?;
    }
    Ok(())
}

/// A configuration names something that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys of another issuer.
    #[error(transparent)]
    Keys(#[from] FetchError),
}
