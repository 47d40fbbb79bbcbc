//! Places on the globe, and how far they are apart. Pure.

/// A place: degrees north and degrees east.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// −90 to 90.
    pub latitude: f64,
    /// −180 to 180.
    pub longitude: f64,
}

/// The Earth's mean radius, kilometres.
const RADIUS_KM: f64 = 6371.0;

impl Place {
    /// `None` where the numbers are none, or not on the globe.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let on_it = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        on_it.then_some(Self { latitude, longitude })
    }

    /// Great-circle distance in kilometres (the haversine formula, exact to half a per cent: the
    /// Earth is no ball).
    #[must_use]
    pub fn distance_km(self, other: Self) -> f64 {
        let half = |from: f64, to: f64| ((to - from).to_radians() / 2.0).sin().powi(2);
        let (here, there) = (self.latitude.to_radians(), other.latitude.to_radians());
        let chord = half(self.latitude, other.latitude)
            + here.cos() * there.cos() * half(self.longitude, other.longitude);
        2.0 * RADIUS_KM * chord.sqrt().min(1.0).asin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(latitude: f64, longitude: f64) -> Place {
        Place::new(latitude, longitude).unwrap()
    }

    #[test]
    fn known_distances() {
        let (london, paris) = (place(51.5074, -0.1278), place(48.8566, 2.3522));
        assert!((london.distance_km(paris) - 343.6).abs() < 1.0);
        assert!(london.distance_km(london) < 1e-6);
        let across = place(10.0, 179.5).distance_km(place(10.0, -179.5));
        assert!(across < 111.0, "over the date line: {across}");
        let poles = place(90.0, 0.0).distance_km(place(-90.0, 77.0));
        assert!((poles - std::f64::consts::PI * RADIUS_KM).abs() < 1e-6);
    }

    #[test]
    fn what_is_not_on_the_globe_is_no_place() {
        for (latitude, longitude) in
            [(91.0, 0.0), (0.0, 181.0), (f64::NAN, 0.0), (0.0, f64::INFINITY)]
        {
            assert!(Place::new(latitude, longitude).is_none());
        }
    }
}
