"""Damaged copies of model files, the same ones on every run."""

import random


def flip(data, random_):
    """Flip one to eight bits."""
    mutant = bytearray(data)
    for _ in range(random_.randint(1, 8)):
        mutant[random_.randrange(len(mutant))] ^= 1 << random_.randrange(8)
    return bytes(mutant)


def cut(data, random_):
    """Keep the beginning only."""
    return data[: random_.randrange(len(data))]


def splice(data, random_):
    """Copy a run of bytes over another one."""
    size = random_.randint(1, 64)
    source, target = (random_.randrange(len(data)) for _ in range(2))
    return data[:target] + data[source : source + size] + data[target + size :]


def remove(data, random_):
    """Take a run of bytes out, so that all behind it moves."""
    start = random_.randrange(len(data))
    return data[:start] + data[start + random_.randint(1, 64) :]


def overwrite(data, random_):
    """Write a number that offsets and lengths do not expect."""
    number = random_.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4))
    start = 4 * random_.randrange(len(data) // 4)
    return data[:start] + number.to_bytes(4, "little") + data[start + 4 :]


def mutants(files, count, seed=0):
    """Yield `count` damaged files.

    Half of them are damaged in the tables alone: most bytes of a file are weights,
    where a mutation changes an answer but breaks nothing.

    Args:
        files: Pairs of a file's bytes and the runs `(start, end)` of its weights.
        count: How many.
        seed: Decides them all.
    """
    random_ = random.Random(seed)
    for _ in range(count):
        data, weights = random_.choice(files)
        mutate = random_.choice((flip, cut, splice, remove, overwrite))
        if random_.random() < 0.5:
            yield mutate(data, random_)
        else:
            yield in_tables(data, weights, mutate, random_)


def in_tables(data, weights, mutate, random_):
    """Mutate one of the runs between the weights."""
    edges = [0, *(edge for run in weights for edge in run), len(data)]
    runs = [run for run in zip(edges[::2], edges[1::2], strict=True) if run[0] < run[1]]
    start, end = random_.choices(runs, [end - start for start, end in runs])[0]
    if end - start < 4:
        return mutate(data, random_)
    return data[:start] + mutate(data[start:end], random_) + data[end:]


def with_weights(data, network):
    """Pair a file with the runs of its weights."""
    runs = []
    for tensor in network.tensors:
        if tensor.is_constant and tensor.data.nbytes >= 16:
            start = data.index(tensor.data.tobytes())
            runs.append((start, start + tensor.data.nbytes))
    return data, merged(sorted(runs))


def merged(runs):
    """Join runs that overlap."""
    result = []
    for start, end in runs:
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
