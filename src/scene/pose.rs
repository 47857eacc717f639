//! Skeleton poses: where the joints of a person are while they do something.
//!
//! A pose is a set of angles, so two poses can be mixed. Angles are in radians from straight down, positive
//! towards the side the person faces; lengths are in body heights. Time is seconds since the action began.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use super::action::Action;
use super::random::Random;

/// Joints of a figure, in the order of [`Pose::joints`]: hip, neck, head; near elbow and hand, far elbow and
/// hand; near knee and foot, far knee and foot.
pub const JOINTS: usize = 11;

/// Radius of the head.
pub const HEAD: f32 = 0.075;
const THIGH: f32 = 0.24;
const SHIN: f32 = 0.24;
const TORSO: f32 = 0.29;
const UPPER_ARM: f32 = 0.16;
const FOREARM: f32 = 0.155;

/// How one person does one action: the same action twice is never the same movement.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    lean: f32,
    arms: [f32; 2],
    /// Cycles per second.
    pub tempo: f32,
    /// Of the cycle, radians.
    pub phase: f32,
    amplitude: f32,
    variant: [f32; 3],
    /// Seconds that sitting down, crouching or raising the arms takes.
    onset: f32,
    /// Seconds from losing balance to lying still.
    pub fall: f32,
    /// Seconds from one throw or kick to the next.
    pub period: f32,
    /// Factor on [`Action::speed`].
    pub pace: f32,
}

impl Manner {
    pub fn new(random: &mut Random, action: Action) -> Self {
        Self {
            lean: 0.03 * random.normal(),
            arms: [random.between(-0.05, 0.15), random.between(-0.05, 0.15)],
            tempo: action.tempo() * random.between(0.8, 1.25),
            phase: random.between(0.0, TAU),
            amplitude: random.between(0.85, 1.15),
            variant: [random.unit(), random.unit(), random.unit()],
            onset: random.between(0.55, 0.95),
            fall: random.between(0.9, 1.5),
            period: random.between(1.4, 2.1),
            pace: random.between(0.8, 1.2),
        }
    }

    /// Position in the throw or kick, 0..1.
    pub fn stroke(&self, time: f32) -> f32 {
        let turns = time / self.period + self.phase / TAU;
        turns - turns.floor()
    }

    /// Which of several equal ways, 0..1.
    pub fn variant(&self) -> f32 {
        self.variant[0]
    }
}

/// Upper and lower half of a limb.
type Limb = [f32; 2];

/// Angles of a body.
#[derive(Clone, Copy, Debug)]
pub struct Pose {
    pub lean: f32,
    /// Near and far arm, near and far leg.
    limbs: [Limb; 4],
    /// Turn of the whole body about the hip: ±π/2 lies flat.
    pub roll: f32,
    /// Height of the lowest point above the ground.
    lift: f32,
    /// Sideways shift of the hip, towards the front.
    shift: f32,
}

fn ease(x: f32) -> f32 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

fn sin(x: f32) -> f32 {
    libm::sinf(x)
}

fn cos(x: f32) -> f32 {
    libm::cosf(x)
}

impl Pose {
    /// The pose of `action`, `time` seconds after it began.
    pub fn of(action: Action, time: f32, m: &Manner) -> Pose {
        let mut pose = Pose {
            lean: m.lean,
            limbs: [[0.1 + m.arms[0], 0.14], [-0.08 - m.arms[1], 0.12], [0.05, -0.02], [-0.05, -0.02]],
            roll: 0.0,
            lift: 0.0,
            shift: 0.0,
        };
        let angle = TAU * m.tempo * time + m.phase;
        let (s, c) = (sin(angle), cos(angle));
        let up = s.max(0.0);
        let down = (-s).max(0.0);
        match action {
            Action::Stand => pose.lean += 0.015 * s,
            Action::Walk | Action::Carry => {
                let a = m.amplitude * 0.5;
                pose.limbs[2] = [a * s, a * s - 0.35 * c.max(0.0)];
                pose.limbs[3] = [-a * s, -a * s - 0.35 * (-c).max(0.0)];
                if action == Action::Walk {
                    let swing = 0.45 * s * m.amplitude;
                    pose.lean += 0.06;
                    pose.limbs[0] = [-swing, 0.25 - swing];
                    pose.limbs[1] = [swing, 0.25 + swing];
                } else {
                    pose.lean -= 0.06;
                    pose.limbs[0] = [0.6, 1.5];
                    pose.limbs[1] = [0.5, 1.5];
                }
            }
            Action::Run => {
                let a = m.amplitude * 0.9;
                pose.limbs[2] = [0.2 + a * s, a * s - 0.1 - 0.9 * c.max(0.0)];
                pose.limbs[3] = [0.2 - a * s, -a * s - 0.1 - 0.9 * (-c).max(0.0)];
                pose.lean += 0.28;
                pose.limbs[0] = [-0.9 * s, 1.5 - 0.9 * s];
                pose.limbs[1] = [0.9 * s, 1.5 + 0.9 * s];
                pose.lift = 0.05 * c.abs();
            }
            Action::Jump => {
                pose.lift = 0.32 * up * m.amplitude;
                pose.limbs[2] = [0.6 * down + 0.1, -0.6 * down - 0.1];
                pose.limbs[3] = [0.6 * down - 0.1, -0.6 * down - 0.1];
                pose.lean += 0.25 * down;
                pose.limbs[0] = [0.3 + 2.2 * up - 0.6 * down, 0.6 + 2.1 * up];
                pose.limbs[1] = [-0.3 - 2.2 * up + 0.2 * down, -0.5 - 2.1 * up];
            }
            Action::Wave => {
                // The upper arm points outwards, so the hand never crosses the head.
                let side = if m.variant[1] < 0.5 { 1.0 } else { -1.0 };
                let reach = 2.0 + 0.15 * m.variant[0];
                pose.limbs[0] = [side * reach, side * (2.6 + 0.8 * s * m.amplitude)];
                pose.lean -= 0.05 * side;
            }
            Action::Fall => {
                let u = (time / m.fall).clamp(0.0, 1.0);
                // First a stagger, then the drop.
                let stagger = ease(u / 0.35) * (1.0 - ease((u - 0.35) / 0.5));
                let drop = ease((u - 0.3) / 0.7);
                let drop = drop * (0.4 + 0.6 * drop);
                pose = pose.mixed(&Pose::lying(m, 0.0), drop);
                let side = pose_side(m);
                pose.lean += 0.3 * stagger * side;
                pose.limbs[0][0] += 1.7 * stagger;
                pose.limbs[0][1] += 1.9 * stagger;
                pose.limbs[1][0] -= 1.6 * stagger;
                pose.limbs[1][1] -= 1.6 * stagger;
                pose.limbs[2][0] += 0.35 * stagger;
                pose.limbs[3][1] -= 0.5 * stagger;
            }
            Action::Lie => pose = Pose::lying(m, s),
            Action::Sit => {
                let u = ease(time / m.onset);
                pose.limbs[2] = [1.5 * u + 0.05, 0.0];
                pose.limbs[3] = [1.42 * u - 0.05, -0.05];
                pose.lean += 1.2 * u * (1.0 - u) + 0.02 * s * u;
                pose.limbs[0] = [0.2 + 0.5 * u, 0.3 + 0.9 * u];
                pose.limbs[1] = [0.1 + 0.5 * u, 0.2 + 0.9 * u];
                pose.shift = -0.22 * u;
            }
            Action::Crouch => {
                let k = ease(time / m.onset) * (0.92 + 0.06 * s);
                pose.limbs[2] = [1.75 * k, -k];
                pose.limbs[3] = [1.35 * k, -1.2 * k];
                pose.lean += 0.55 * k;
                pose.limbs[0] = [0.9 * k, 1.3 * k];
                pose.limbs[1] = [0.6 * k, 1.1 * k];
            }
            Action::Climb => {
                pose.limbs[0] = [2.3 + 0.5 * up, 2.8 + 0.2 * up];
                pose.limbs[1] = [2.3 + 0.5 * down, 2.8 + 0.2 * down];
                pose.limbs[2] = [0.4 + 0.8 * down, -0.3 - 0.5 * down];
                pose.limbs[3] = [0.4 + 0.8 * up, -0.3 - 0.5 * up];
                // Up the fence and down again, a fifth of a body height per second.
                let turns = time * 0.2 + m.variant[0];
                let height = (turns - 2.0 * (turns / 2.0).floor() - 1.0).abs();
                pose.lift = 0.05 + 0.4 * (1.0 - height);
                pose.lean += 0.05;
            }
            Action::Throw => {
                let k = m.stroke(time);
                let arm = throwing_arm(k);
                pose.limbs[0] = [arm, arm + if k < 0.5 { 0.6 } else { 0.12 }];
                pose.lean += if k < 0.75 {
                    -0.2 * ease(k / 0.4) + 0.45 * ease((k - 0.42) / 0.14)
                } else {
                    0.25 * (1.0 - ease((k - 0.75) / 0.25))
                };
                let step = ease((k - 0.3) / 0.2) * (1.0 - ease((k - 0.8) / 0.2));
                pose.limbs[2] = [0.05 + 0.25 * step, 0.1 * step];
                pose.limbs[3] = [-0.1 - 0.12 * step, -0.05 - 0.2 * step];
            }
            Action::Kick => {
                let k = m.stroke(time);
                let leg = match k {
                    _ if k < 0.38 => -0.9 * ease(k / 0.35),
                    _ if k < 0.65 => -0.9 + 2.2 * ease((k - 0.38) / 0.12),
                    _ => 1.3 * (1.0 - ease((k - 0.65) / 0.25)),
                };
                let bend = if k < 0.4 { 0.9 * ease(k / 0.35) } else { 0.9 * (1.0 - ease((k - 0.4) / 0.1)) };
                pose.limbs[2] = [leg, leg - bend];
                pose.limbs[3] = [-0.05, -0.1];
                pose.lean -= 0.15 * ease((k - 0.38) / 0.12) * (1.0 - ease((k - 0.7) / 0.25));
                pose.limbs[0] = [-0.5 * leg, 0.1 - 0.4 * leg];
                pose.limbs[1] = [0.7 * leg, 0.2 + 0.7 * leg];
            }
            Action::Dribble => {
                pose.limbs[0] = [0.6 + 0.3 * s, 1.2 + 0.4 * s];
                pose.limbs[2] = [0.4, -0.25];
                pose.limbs[3] = [0.05, -0.5];
                pose.lean += 0.26;
            }
            Action::RaiseArms => {
                let u = ease(time / m.onset);
                let open = 0.3 + 0.3 * m.variant[0];
                pose.limbs[0] = [(PI - open) * u, (PI - open * 0.6) * u + 0.04 * s];
                pose.limbs[1] = [-(PI - open) * u, -(PI - open * 0.6) * u];
            }
            Action::Dance => {
                pose.lean += 0.22 * s;
                pose.limbs[0] = [1.5 + 0.9 * s, 2.2 + 1.1 * c];
                pose.limbs[1] = [-1.5 + 0.9 * s, -2.2 + 1.1 * c];
                pose.limbs[2] = [0.35 + 0.25 * s, -0.1 - 0.35 * c.max(0.0)];
                pose.limbs[3] = [-0.35 + 0.25 * s, -0.1 - 0.35 * (-c).max(0.0)];
                pose.lift = 0.03 * sin(2.0 * angle).abs();
                pose.shift = 0.08 * s;
            }
            Action::Fight => {
                // The square root makes punches quick out and slow back.
                let (jab, cross) = (up.sqrt(), down.sqrt());
                pose.limbs[0] = [0.7 + 0.95 * jab, 2.0 - 0.45 * jab];
                pose.limbs[1] = [0.5 + 1.15 * cross, 2.1 - 0.55 * cross];
                pose.limbs[2] = [0.35, 0.0];
                pose.limbs[3] = [-0.35, -0.5];
                pose.lean += 0.12 + 0.15 * (jab + cross);
                pose.shift = 0.1 * (jab + cross) - 0.05;
                if sin(angle * 0.5 + m.variant[0] * 6.0) > 0.85 && m.variant[1] > 0.5 {
                    pose.limbs[2] = [1.3, 1.3];
                }
            }
            Action::Hug => {
                pose.limbs[0] = [1.35 + 0.05 * s, 1.75];
                pose.limbs[1] = [1.1, 1.6];
                pose.lean += 0.12 + 0.04 * s;
            }
            Action::ShakeHands => {
                pose.limbs[0] = [0.75 + 0.02 * s, 1.35 + 0.28 * s];
                pose.lean += 0.1;
            }
            Action::Empty => {}
        }
        pose
    }

    /// Flat on the ground; `breath` in -1..=1. Falling ends in exactly this pose.
    fn lying(m: &Manner, breath: f32) -> Pose {
        let [_, b, c] = m.variant;
        Pose {
            lean: m.lean,
            limbs: [
                [0.2 + 1.6 * b + 0.04 * breath, 0.5 + 1.4 * b],
                [-0.2 + 0.6 * c, 0.3],
                [0.1 + 0.5 * c, -0.1 - 0.4 * b],
                [0.1, -0.3],
            ],
            roll: pose_side(m) * FRAC_PI_2,
            lift: 0.0,
            shift: 0.0,
        }
    }

    /// `self` moved towards `other` by `u` in 0..=1.
    pub fn mixed(&self, other: &Pose, u: f32) -> Pose {
        let mix = |a: f32, b: f32| a + (b - a) * u;
        let mut limbs = self.limbs;
        for (limb, to) in limbs.iter_mut().zip(&other.limbs) {
            *limb = [mix(limb[0], to[0]), mix(limb[1], to[1])];
        }
        Pose {
            lean: mix(self.lean, other.lean),
            limbs,
            roll: mix(self.roll, other.roll),
            lift: mix(self.lift, other.lift),
            shift: mix(self.shift, other.shift),
        }
    }

    /// Joint positions in body heights: x towards the front from where the person stands, y up from the ground
    /// as a negative number.
    pub fn joints(&self) -> [[f32; 2]; JOINTS] {
        let reach =
            |[x, y]: [f32; 2], angle: f32, length: f32| [x + sin(angle) * length, y + cos(angle) * length];
        let hip = [0.0, 0.0];
        let neck = reach(hip, PI - self.lean, TORSO);
        let head = reach(neck, PI - self.lean, HEAD + 0.035);
        let shoulder = [neck[0], neck[1] + 0.03];
        let mut joints = [[0.0; 2]; JOINTS];
        joints[..3].copy_from_slice(&[hip, neck, head]);
        for (i, limb) in self.limbs.iter().enumerate() {
            let (root, upper, lower) =
                if i < 2 { (shoulder, UPPER_ARM, FOREARM) } else { (hip, THIGH, SHIN) };
            let middle = reach(root, limb[0], upper);
            joints[3 + 2 * i] = middle;
            joints[4 + 2 * i] = reach(middle, limb[1], lower);
        }
        if self.roll != 0.0 {
            let (s, c) = (sin(self.roll), cos(self.roll));
            for joint in &mut joints {
                *joint = [joint[0] * c - joint[1] * s, joint[0] * s + joint[1] * c];
            }
        }
        let lowest = joints.iter().fold(joints[2][1] + HEAD, |low, joint| low.max(joint[1]));
        for joint in &mut joints {
            *joint = [joint[0] + self.shift, joint[1] - lowest - self.lift];
        }
        joints
    }
}

/// Forwards or backwards, for those who fall or lie.
fn pose_side(m: &Manner) -> f32 {
    if m.variant[0] < 0.6 { 1.0 } else { -1.0 }
}

/// Angle of the throwing arm at `k` of the stroke: back and up, over the head, forwards.
fn throwing_arm(k: f32) -> f32 {
    match k {
        _ if k < 0.42 => -0.2 - 2.9 * ease(k / 0.36),
        // The same direction as -3.1, one turn on, so that the arm goes over the head.
        _ if k < 0.75 => 3.18 - 1.9 * ease((k - 0.42) / 0.14),
        _ => 1.28 - 1.48 * ease((k - 0.75) / 0.25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falling_ends_where_lying_begins() {
        let m = Manner::new(&mut Random::new(5), Action::Fall);
        let (end, lying) =
            (Pose::of(Action::Fall, m.fall + 0.01, &m).joints(), Pose::lying(&m, 0.0).joints());
        for (a, b) in end.iter().zip(&lying) {
            assert!((a[0] - b[0]).abs() < 1e-4 && (a[1] - b[1]).abs() < 1e-4);
        }
    }

    #[test]
    fn nobody_sinks_into_the_ground() {
        for seed in 0..20 {
            for action in Action::ALL {
                let m = Manner::new(&mut Random::new(seed), action);
                for step in 0..40 {
                    for [x, y] in Pose::of(action, step as f32 * 0.1, &m).joints() {
                        assert!(y <= 1e-4 && y > -1.8 && x.abs() < 1.2, "{action} {x} {y}");
                    }
                }
            }
        }
    }
}
