//! The pickle inside a pytorch_model.bin, read without running anything.
//!
//! A pickle is a program for a stack machine that may call any Python function. This reader knows the
//! opcodes that `torch.save` writes for a state dict and the seven globals such a dict needs; each becomes
//! a plain value. Everything else is refused by name. Values live in one list and refer to each other by
//! index, so neither nesting nor sharing costs more than the input's length.

use std::collections::HashMap;

use super::error::shown;
use super::weights::Element;

/// Where reading stopped, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub offset: usize,
    pub problem: String,
}

/// A tensor as the pickle describes it; not yet checked against its storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor<'a> {
    /// Name of the archive member `data/KEY`.
    pub key: &'a str,
    pub element: Element,
    /// Elements in the storage.
    pub stored: usize,
    /// First element of the tensor in the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "FloatStorage") => Global::Storage(Element::F32),
            ("torch", "HalfStorage") => Global::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Element::BF16),
            ("torch", "LongStorage") => Global::Storage(Element::Other("I64")),
            _ => return None,
        })
    }
}

/// Index into `Reader::values`.
type Id = usize;

enum Value<'a> {
    Mark,
    /// None, True, False, a float: never looked at.
    Atom,
    Integer(i64),
    Text(&'a str),
    Global(Global),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage {
        key: &'a str,
        element: Element,
        stored: usize,
    },
    Tensor(Tensor<'a>),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Value::Mark => "a mark",
            Value::Atom => "None, a truth value or a number",
            Value::Integer(_) => "an integer",
            Value::Text(_) => "a text",
            Value::Global(_) => "a global",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Storage { .. } => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

struct Reader<'a> {
    input: &'a [u8],
    /// Next byte to read.
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    memo: HashMap<u32, Id>,
}

/// Reads the state dict: names and tensors in the file's order.
pub(crate) fn read(input: &[u8]) -> Result<Vec<(&str, Tensor<'_>)>, Refusal> {
    let mut reader = Reader { input, at: 0, values: Vec::new(), stack: Vec::new(), memo: HashMap::new() };
    loop {
        let offset = reader.at;
        match reader.step() {
            Ok(false) => {}
            Ok(true) => return reader.state_dict().map_err(|problem| Refusal { offset, problem }),
            Err(problem) => return Err(Refusal { offset, problem }),
        }
    }
}

impl<'a> Reader<'a> {
    /// One instruction; true at the end.
    fn step(&mut self) -> Result<bool, String> {
        match self.byte()? {
            0x80 => match self.byte()? {
                2 => {}
                other => {
                    return Err(format!(
                        "pickle protocol {other}, expected 2, which torch.save writes by default"
                    ));
                }
            },
            b'.' => return Ok(true),
            b'(' => self.push(Value::Mark),
            b'N' | 0x88 | 0x89 => self.push(Value::Atom),
            b'G' => {
                self.bytes(8)?;
                self.push(Value::Atom);
            }
            b'K' => {
                let value = self.byte()?.into();
                self.push(Value::Integer(value));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?).into();
                self.push(Value::Integer(value));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?).into();
                self.push(Value::Integer(value));
            }
            0x8a => {
                let value = self.long()?;
                self.push(Value::Integer(value));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                let text = self.text(length)?;
                self.push(Value::Text(text));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            code @ 0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.push(Value::Tuple(items));
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let place = self.byte()?.into();
                self.remember(place)?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.remember(place)?;
            }
            b'h' => {
                let place = self.byte()?.into();
                self.recall(place)?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = Global::find(module, name).ok_or_else(|| {
                    format!(
                        "asks for `{}.{}`, which a state dict does not need; refused, nothing was run. If you trust \
                         the file, save its weights again as model.safetensors",
                        shown(module),
                        shown(name)
                    )
                })?;
                self.push(Value::Global(global));
            }
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => {
                // The attributes of an OrderedDict (`_metadata`): not needed.
                let target = self.pop_many(2)?[0];
                if !matches!(self.values[target], Value::Dict(_)) {
                    return Err(format!("sets attributes of {}; refused", self.values[target].kind()));
                }
                self.stack.push(target);
            }
            other => return Err(format!("opcode 0x{other:02x}, which a state dict does not need; refused")),
        }
        Ok(false)
    }

    /// `('storage', torch.XStorage, key, location, elements)`
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = match self.tuple(id)? {
            [kind, class, key, _location, stored] => {
                match (&self.values[*kind], &self.values[*class], &self.values[*key]) {
                    (Value::Text("storage"), Value::Global(Global::Storage(element)), Value::Text(key)) => {
                        Some(Value::Storage { key, element: *element, stored: self.size(*stored)? })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        self.push(storage.ok_or("a persistent id that is not (storage, type, key, place, elements)")?);
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), String> {
        let [callable, arguments] = self.pop_many(2)?[..] else { unreachable!("pop_many(2) gives two") };
        let Value::Global(global) = self.values[callable] else {
            return Err(format!("calls {}; refused", self.values[callable].kind()));
        };
        let arguments = self.tuple(arguments)?;
        match (global, arguments) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Value::Storage { key, element, stored } = self.values[*storage] else {
                    return Err(format!(
                        "a tensor over {}, expected a storage",
                        self.values[*storage].kind()
                    ));
                };
                let (offset, shape, strides) =
                    (self.size(*offset)?, self.sizes(*shape)?, self.sizes(*strides)?);
                if shape.len() != strides.len() {
                    return Err(format!("a tensor with {} axes but {} strides", shape.len(), strides.len()));
                }
                self.push(Value::Tensor(Tensor { key, element, stored, offset, shape, strides }));
            }
            (Global::RebuildParameter, [tensor, ..]) => {
                let tensor = *tensor;
                if !matches!(self.values[tensor], Value::Tensor(_)) {
                    return Err(format!(
                        "a parameter over {}, expected a tensor",
                        self.values[tensor].kind()
                    ));
                }
                self.stack.push(tensor);
            }
            _ => return Err(format!("calls {global:?} with {} arguments; refused", arguments.len())),
        }
        Ok(())
    }

    fn state_dict(self) -> Result<Vec<(&'a str, Tensor<'a>)>, String> {
        let [top] = self.stack[..] else {
            return Err(format!("ends with {} values, expected one state dict", self.stack.len()));
        };
        let Value::Dict(items) = &self.values[top] else {
            return Err(format!("holds {}, expected a state dict", self.values[top].kind()));
        };
        let mut tensors = Vec::with_capacity(items.len());
        for (name, value) in items {
            match (&self.values[*name], &self.values[*value]) {
                (Value::Text(name), Value::Tensor(tensor)) => tensors.push((*name, tensor.clone())),
                (Value::Text(name), other) => {
                    return Err(format!(
                        "`{}` is {}, expected a tensor: this is not a plain state dict (a training checkpoint?); save \
                         the model's state_dict() alone",
                        shown(name),
                        other.kind()
                    ));
                }
                (other, _) => return Err(format!("a key is {}, expected a tensor's name", other.kind())),
            }
        }
        Ok(tensors)
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let (pairs, []) = items.as_chunks::<2>() else { return Err("a key without a value".into()) };
        let target = *self.stack.last().ok_or("the stack is empty")?;
        let Value::Dict(entries) = &mut self.values[target] else {
            return Err(format!("sets items of {}; refused", self.values[target].kind()));
        };
        entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let id = *self.memo.get(&place).ok_or_else(|| format!("memo {place} was never set"))?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.pop_many(1)?[0])
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let from = self.stack.len().checked_sub(count).ok_or("the stack is empty")?;
        Ok(self.stack.split_off(from))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|&id| matches!(self.values[id], Value::Mark));
        let items = self.stack.split_off(mark.ok_or("no mark on the stack")? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&self, id: Id) -> Result<&[Id], String> {
        match &self.values[id] {
            Value::Tuple(items) => Ok(items),
            other => Err(format!("{}, expected a tuple", other.kind())),
        }
    }

    fn size(&self, id: Id) -> Result<usize, String> {
        match self.values[id] {
            Value::Integer(value) => {
                usize::try_from(value).map_err(|_| format!("the size {value}, expected at least 0"))
            }
            ref other => Err(format!("{}, expected a size", other.kind())),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, String> {
        const MOST_AXES: usize = 8;
        let items = self.tuple(id)?;
        if items.len() > MOST_AXES {
            return Err(format!("a tensor with {} axes, expected at most {MOST_AXES}", items.len()));
        }
        items.iter().map(|&item| self.size(item)).collect()
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.input.len());
        let end = end.ok_or("the pickle is truncated")?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.bytes(N)?.try_into().expect("`bytes` gives as many as asked for"))
    }

    /// A little-endian two's complement integer of up to eight bytes.
    fn long(&mut self) -> Result<i64, String> {
        let count = usize::from(self.byte()?);
        let bytes = self.bytes(count)?;
        if count > 8 {
            return Err(format!("an integer of {count} bytes, expected at most 8"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..count].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(all))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes(length)?).map_err(|error| format!("a text that is not UTF-8: {error}"))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length =
            self.input[self.at..].iter().position(|&byte| byte == b'\n').ok_or("the pickle is truncated")?;
        let line = self.text(length)?;
        self.at += 1;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `OrderedDict([("w", tensor over FloatStorage "0" of `stored` elements)])` as torch.save writes it.
    fn state_dict() -> Vec<u8> {
        let mut bytes = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00w".to_vec();
        bytes.extend(
            b"ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storagectorch\nFloatStorage\n",
        );
        bytes.extend(
            b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89h\x00)RtRu.",
        );
        bytes
    }

    #[test]
    fn a_state_dict_is_read_as_torch_wrote_it() {
        let bytes = state_dict();
        let expected = Tensor {
            key: "0",
            element: Element::F32,
            stored: 6,
            offset: 0,
            shape: vec![2, 3],
            strides: vec![3, 1],
        };
        assert_eq!(read(&bytes), Ok(vec![("w", expected)]));
    }

    #[test]
    fn a_call_of_a_system_function_is_refused_by_name() {
        for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("posix", "system")]
        {
            let bytes = format!("\u{1}c{module}\n{name}\n(X\u{4}\0\0\0trueetR.").replace('\u{1}', "");
            let refusal = read(bytes.as_bytes()).unwrap_err();
            assert!(refusal.problem.contains(&format!("`{module}.{name}`")), "{}", refusal.problem);
        }
    }

    #[test]
    fn other_ways_to_call_are_refused() {
        // INST, OBJ, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, EXT1, PERSID, and REDUCE of what is no function.
        for bytes in
            [&b"(ios\nsystem\n."[..], b"(o.", b")\x81.", b"\x92.", b"\x93.", b"\x82\x01.", b"Px\n.", b"))R."]
        {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn deep_nesting_and_sharing_stay_cheap() {
        // ((((…)))) a million deep, and a "billion laughs" of tuples of the same tuple.
        let mut bytes = vec![b')'];
        bytes.resize(1 << 20, 0x85);
        bytes.push(b'.');
        assert!(read(&bytes).unwrap_err().problem.contains("expected a state dict"));
        let laughs: Vec<u8> =
            std::iter::once(b')').chain(b"q\x00h\x00h\x00\x87".repeat(1000)).chain(*b".").collect();
        assert!(read(&laughs).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_damaged_state_dict_never_panics(at in 0usize..200, byte in any::<u8>(), cut in 0usize..300) {
            let mut bytes = state_dict();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut.max(1));
            let _ = read(&bytes);
        }

        #[test]
        fn random_programs_never_panic(codes in proptest::collection::vec(
            prop::sample::select(&b"(N}).tsuRQb\x85\x86\x87\x88\x89"[..]), 0..400)) {
            let _ = read(&codes);
        }
    }
}
