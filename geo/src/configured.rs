//! A configuration to a world: reads the databases that it names.

use std::path::{Path, PathBuf};

use nearhop_conf::{AllDown as Policy, Dns, Region as Configured};

use crate::{AllDown, Override, Place, Region, RegionId, Settings, World, WorldError};

/// Why a configuration makes no world.
#[derive(Debug, thiserror::Error)]
pub enum ConfiguredError {
    /// A database cannot be read.
    #[error("{field}: cannot read {path}: {error}. Check the path and its permissions")]
    File {
        /// Where it is named.
        field: &'static str,
        /// What is named.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A region's name.
    #[error("regions[].name: `{0}` is no name for a region")]
    Name(String),
    /// What was read does not go together.
    #[error("the regions and databases of the configuration cannot be used: {0}")]
    World(#[from] WorldError),
}

/// The world that a configuration describes.
///
/// # Errors
/// [`ConfiguredError`], naming the field.
pub fn world_of(regions: &[Configured], dns: &Dns) -> Result<World, ConfiguredError> {
    let read = |field, path: Option<&Path>| -> Result<Option<Vec<u8>>, ConfiguredError> {
        let file = |path: &Path| {
            let named = |error| ConfiguredError::File { field, path: path.to_owned(), error };
            std::fs::read(path).map_err(named)
        };
        path.map(file).transpose()
    };
    let id = |name: &String| RegionId::new(name).ok_or_else(|| ConfiguredError::Name(name.clone()));
    let regions = regions.iter().map(|region| {
        let place = region.location.and_then(|(north, east)| Place::new(north, east));
        Ok(Region {
            id: id(&region.name)?,
            place,
            addresses: region.addresses.clone(),
            weight: region.weight,
            bias: region.bias,
            drained: region.drained,
        })
    });
    let overrides = dns.overrides.iter().map(|given| {
        let regions = given.regions.iter().map(id).collect::<Result<_, _>>()?;
        let (networks, systems) = (given.networks.clone(), given.systems.clone());
        Ok(Override { networks, systems, regions })
    });
    let settings = Settings {
        alike_km: dns.alike_km,
        all_down: match dns.all_down {
            Policy::Nearest => AllDown::Nearest,
            Policy::NoData => AllDown::NoData,
            Policy::Fallback => AllDown::Fallback(dns.fallback.clone()),
        },
        overrides: overrides.collect::<Result<_, ConfiguredError>>()?,
        home: None,
    };
    let mmdb = read("dns.mmdb", dns.mmdb.as_deref())?;
    let systems = read("dns.asn_mmdb", dns.asn_mmdb.as_deref())?;
    let regions = regions.collect::<Result<_, ConfiguredError>>()?;
    Ok(World::new(regions, settings, mmdb.as_deref(), systems.as_deref())?)
}
