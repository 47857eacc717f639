//! Draws a person, with what they carry, throw, climb or sit on.

use super::action::Action;
use super::canvas::{Canvas, Point, Rgb, shade};
use super::caption::Colour;
use super::pose::{HEAD, JOINTS, Manner, Pose};
use super::random::Random;

const TROUSERS: [Rgb; 4] = [[50.0, 50.0, 70.0], [90.0, 90.0, 95.0], [110.0, 90.0, 70.0], [70.0, 75.0, 60.0]];
const SKIN: [Rgb; 5] = [
    [235.0, 195.0, 165.0],
    [200.0, 150.0, 115.0],
    [150.0, 105.0, 75.0],
    [95.0, 65.0, 48.0],
    [250.0, 215.0, 190.0],
];
const HAIR: [Rgb; 4] = [[40.0, 30.0, 25.0], [100.0, 70.0, 40.0], [190.0, 160.0, 90.0], [60.0, 60.0, 60.0]];
const BALLS: [Rgb; 5] = [
    [230.0, 120.0, 40.0],
    [240.0, 240.0, 240.0],
    [60.0, 60.0, 60.0],
    [200.0, 50.0, 50.0],
    [240.0, 220.0, 60.0],
];
const WOOD: [Rgb; 4] =
    [[150.0, 105.0, 60.0], [185.0, 140.0, 90.0], [120.0, 90.0, 60.0], [170.0, 170.0, 170.0]];
const FENCES: [Rgb; 4] = [[120.0, 80.0, 50.0], [90.0, 90.0, 90.0], [190.0, 190.0, 185.0], [60.0, 60.0, 60.0]];
const SHOE: Rgb = [35.0, 30.0, 30.0];

/// What a person looks like, and their things.
#[derive(Clone, Debug)]
pub struct Body {
    /// Height in units of the picture's height.
    pub height: f32,
    stoutness: f32,
    shirt: Rgb,
    trousers: Rgb,
    skin: Rgb,
    hair: Rgb,
    ball: Rgb,
    wood: Rgb,
    fence: Rgb,
}

/// Where and in which state a body is drawn.
pub struct Placing {
    pub action: Action,
    /// Seconds since the action began.
    pub time: f32,
    pub pose: Pose,
    /// Point on the ground below the person, in scene units.
    pub ground: Point,
    /// 1 faces right, -1 left.
    pub facing: f32,
}

impl Body {
    pub fn new(random: &mut Random, colour: Colour, height: f32) -> Self {
        let shirt = colour.rgb().map(|v| (v + 9.0 * random.normal()).clamp(0.0, 255.0));
        let trousers = if random.chance(0.5) { shade(shirt, 0.78) } else { random.pick(&TROUSERS) };
        Self {
            height,
            stoutness: random.between(0.9, 1.2),
            shirt,
            trousers,
            skin: random.pick(&SKIN),
            hair: random.pick(&HAIR),
            ball: random.pick(&BALLS),
            wood: random.pick(&WOOD),
            fence: random.pick(&FENCES),
        }
    }

    /// Draws the body and returns its joints in scene units.
    pub fn draw(&self, canvas: &mut Canvas, at: &Placing, manner: &Manner) -> [Point; JOINTS] {
        let h = self.height;
        let step = h * at.facing;
        let joints = at.pose.joints().map(|[x, y]| [at.ground[0] + x * step, at.ground[1] + y * h]);
        match at.action {
            Action::Climb => self.draw_fence(canvas, at),
            Action::Sit => self.draw_chair(canvas, at),
            _ => {}
        }
        let [
            hip,
            neck,
            head,
            near_elbow,
            near_hand,
            far_elbow,
            far_hand,
            near_knee,
            near_foot,
            far_knee,
            far_foot,
        ] = joints;
        let k = h * self.stoutness;
        let shoulder = [neck[0] + (hip[0] - neck[0]) * 0.1, neck[1] + (hip[1] - neck[1]) * 0.1];
        let toe =
            |foot: Point| if at.pose.roll.abs() < 0.3 { [foot[0] + 0.06 * step, foot[1]] } else { foot };
        let dark = |colour| shade(colour, 0.8);

        canvas.limb(&[shoulder, far_elbow, far_hand], &[0.13 * k, 0.113 * k], dark(self.shirt));
        canvas.disc(far_hand, 0.06 * k, dark(self.skin));
        canvas.limb(&[hip, far_knee, far_foot], &[0.133 * k, 0.107 * k], dark(self.trousers));
        canvas.line(far_foot, toe(far_foot), 0.075 * k, SHOE);
        canvas.limb(&[hip, near_knee, near_foot], &[0.133 * k, 0.107 * k], self.trousers);
        canvas.line(near_foot, toe(near_foot), 0.075 * k, SHOE);
        canvas.line(hip, shoulder, 0.19 * k, self.shirt);
        canvas.disc(head, HEAD * h, self.skin);
        let crown =
            [head[0] + (head[0] - neck[0]) * 0.25 - 0.02 * step, head[1] + (head[1] - neck[1]) * 0.25];
        canvas.disc(crown, HEAD * 0.75 * h, self.hair);
        if at.action == Action::Carry {
            self.draw_box(canvas, near_hand, far_hand, step);
        }
        // Arms a little darker than the chest, so that they show in front of it.
        canvas.limb(&[shoulder, near_elbow, near_hand], &[0.13 * k, 0.113 * k], shade(self.shirt, 0.92));
        canvas.disc(near_hand, 0.06 * k, self.skin);
        self.draw_ball(canvas, at, manner, near_hand);
        joints
    }

    fn draw_fence(&self, canvas: &mut Canvas, at: &Placing) {
        let h = self.height;
        let [x, y] = [at.ground[0] + 0.2 * h * at.facing, at.ground[1]];
        let posts = (-4..=4).map(|i| {
            let x = x + i as f32 * 0.14 * h;
            ([x, y], [x, y - h])
        });
        let rails = [0.15, 0.55, 0.92].map(|r| ([x - 0.6 * h, y - r * h], [x + 0.6 * h, y - r * h]));
        canvas.lines(posts.chain(rails), 0.037 * h, self.fence);
    }

    fn draw_chair(&self, canvas: &mut Canvas, at: &Placing) {
        let (h, step) = (self.height, self.height * at.facing);
        let [x, y] = [at.ground[0] - 0.22 * step, at.ground[1]];
        let (back, front, seat) = (x - 0.12 * step, x + 0.12 * step, y - 0.17 * h);
        canvas.lines(
            [([back, seat], [front, seat]), ([back, y], [back, y - 0.55 * h]), ([front, y], [front, seat])],
            0.045 * h,
            self.wood,
        );
    }

    fn draw_box(&self, canvas: &mut Canvas, near: Point, far: Point, step: f32) {
        let h = self.height;
        let [x, y] = [(near[0] + far[0]) / 2.0 + 0.03 * step, (near[1] + far[1]) / 2.0 - 0.03 * h];
        let w = 0.13 * h;
        canvas.rectangle([x - w, y - w], [2.0 * w, 1.8 * w], shade(self.wood, 0.8));
        let edge = 0.018 * h;
        let inner = [2.0 * (w - edge), 1.8 * w - 2.0 * edge];
        canvas.rectangle([x - w + edge, y - w + edge], inner, self.wood);
    }

    fn draw_ball(&self, canvas: &mut Canvas, at: &Placing, manner: &Manner, hand: Point) {
        let (h, step) = (self.height, self.height * at.facing);
        let [x, y] = at.ground;
        let radius = 0.065 * h;
        let stroke = manner.stroke(at.time);
        let centre = match at.action {
            Action::Throw if stroke < 0.5 => hand,
            Action::Throw => {
                let flown = (stroke - 0.5) * manner.period;
                [x + step * (0.3 + 1.5 * flown), y - h * (0.85 + 0.35 * flown - 0.9 * flown * flown)]
            }
            Action::Kick => {
                let flown = ((stroke - 0.45) * manner.period).max(0.0);
                let arc = flown * (0.9 - flown).max(0.0) * manner.variant();
                [x + step * (0.25 + 1.5 * flown), y - radius - h * arc]
            }
            Action::Dribble => {
                // The ball is at the hand when the hand is lowest, and half a cycle later on the ground.
                let angle = std::f32::consts::TAU * manner.tempo * at.time + manner.phase;
                let fall = (y - hand[1] - 2.2 * radius).max(0.0);
                let bounce = libm::sinf(angle / 2.0 + 0.6).abs();
                [hand[0] + 0.03 * step, y - radius - fall * bounce]
            }
            _ => return,
        };
        canvas.disc(centre, radius, self.ball);
    }
}
