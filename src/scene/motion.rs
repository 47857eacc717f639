//! The way of somebody through the picture.

/// Back and forth between two turning points.
#[derive(Clone, Copy, Debug)]
pub struct Travel {
    x: f32,
    facing: f32,
    /// Picture heights per second, 0 for those who stay.
    speed: f32,
    roam: f32,
}

impl Travel {
    /// From `x` towards `facing` (-1 left, 1 right), turning at ±`roam` (or at ±`x` if that is farther out).
    pub fn new(x: f32, facing: f32, speed: f32, roam: f32) -> Self {
        Self { x, facing, speed, roam: roam.max(x.abs()) }
    }

    /// Place and facing, `time` seconds after the start.
    pub fn at(&self, time: f32) -> (f32, f32) {
        if self.speed == 0.0 {
            return (self.x, self.facing);
        }
        // Unfold the way: it repeats every two crossings of the span.
        let span = 2.0 * self.roam;
        let gone = self.x * self.facing + self.roam + self.speed * time;
        let lap = gone - 2.0 * span * (gone / (2.0 * span)).floor();
        if lap < span {
            ((lap - self.roam) * self.facing, self.facing)
        } else {
            ((3.0 * self.roam - lap) * self.facing, -self.facing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walkers_stay_between_their_turning_points_and_face_where_they_go() {
        for facing in [-1.0, 1.0] {
            let travel = Travel::new(0.1, facing, 0.3, 0.33);
            assert!((travel.at(0.0).0 - 0.1).abs() < 1e-6);
            let mut last = travel.at(0.0);
            for step in 1..1000 {
                let now = travel.at(step as f32 * 0.02);
                assert!(now.0.abs() <= 0.33 + 1e-5);
                if now.1 == last.1 {
                    assert!((now.0 - last.0) * now.1 > 0.0);
                }
                last = now;
            }
        }
    }
}
