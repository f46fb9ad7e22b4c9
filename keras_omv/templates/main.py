# Says what the camera sees. For OpenMV firmware 5.0 or newer; made by keras_omv.
# Copy main.py, model.tflite and labels.txt to the camera's USB drive, eject it, reset.
import gc
import os
import sys
import time

MODEL = "model.tflite"
LABELS = "labels.txt"  # one label a line, in the order of the model's outputs
FOLDERS = ("/rom", os.getcwd())  # where to look, in this order
TOP = 3  # labels to print for each picture
SETTLE_MS = 2000  # time for the camera to find its exposure

COPY = ("Copy main.py, %s and %s to the camera's USB drive, eject it and reset the "
        "camera." % (MODEL, LABELS))
REFILL = ("Add %s and %s again with OpenMV IDE: Tools, ROM File System."
          % (MODEL, LABELS))
SHRINK = ("Put it into /rom, where its weights take no RAM (OpenMV IDE: Tools, ROM "
          "File System), or use a smaller one: lower alpha or resolution.")
ADVICE = (
    ("Failed to allocate tensors", "The model needs more RAM than this camera has in "
     "one piece, or an operation that this firmware lacks. " + SHRINK),
    ("Unsupported model schema", "The file is damaged or no .tflite model. " + COPY),
    ("Failed to load network", "This camera's NPU needs a compiled model. Add the "
     "model with OpenMV IDE: Tools, ROM File System; it compiles it."),
    ("rame buffer", "The model leaves too little memory for pictures. " + SHRINK),
    ("ixel format", "This camera's sensor does not give what the model needs: export "
     "it for grey pictures (1 channel) or for colour (3)."),
)


def stop(problem, advice):
    print("\nSTOPPED: %s\n%s" % (problem, advice))
    raise SystemExit(1)


def advice_for(error, otherwise):
    if isinstance(error, MemoryError):
        return "The model is too big for this camera's RAM. " + SHRINK
    for text, advice in ADVICE:
        if text in str(error):
            return advice
    return otherwise


def is_there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def find_folder():
    found = [folder for folder in FOLDERS if is_there(folder + "/" + MODEL)]
    if not found:
        stop("%s is neither in %s" % (MODEL, " nor in ".join(FOLDERS)), COPY)
    if found[-1] != found[0]:
        print("Not used, as %s comes first: %s/%s" % (found[0], found[-1], MODEL))
    return found[0]


def read_labels(path):
    with open(path) as lines:
        labels = [line.rstrip("\r\n") for line in lines]
    return [label for label in labels if label]


def load(reader, path):
    gc.collect()
    try:
        return reader(path)
    except (OSError, MemoryError, ValueError, RuntimeError) as error:
        gc.collect()
        again = REFILL if path.startswith("/rom/") else COPY
        stop("%s did not load: %s" % (path, error), advice_for(error, again))


try:
    import csi
    import ml
    csi.CSI, ml.Model  # what older releases lack
except (ImportError, AttributeError) as error:
    stop("csi.CSI and ml.Model are needed: %s" % error,
         "The firmware is older than 5.0. OpenMV IDE updates it: press Connect.")

# The model comes first: the camera's frame buffers take what memory it leaves.
gc.collect()
print("Free heap: %d bytes" % gc.mem_free())
folder = find_folder()
labels = load(read_labels, folder + "/" + LABELS)
model = load(ml.Model, folder + "/" + MODEL)
print("%s/%s: %d bytes of RAM, %d bytes of heap left"
      % (folder, MODEL, model.ram, gc.mem_free()))

height, width, channels = model.input_shape[0][1:]
outputs = model.output_shape[0][-1]
if len(labels) != outputs and (outputs, len(labels)) != (1, 2):
    stop("%s has %d labels, the model has %d outputs" % (LABELS, len(labels), outputs),
         "Copy %s and %s from the same folder." % (MODEL, LABELS))

try:
    csi0 = csi.CSI()
    csi0.reset()
    csi0.pixformat(csi.RGB565 if channels == 3 else csi.GRAYSCALE)
    csi0.framesize(csi.QVGA)  # 320x240
    # The largest window of the model's own shape, in the middle: 240x240 for a square.
    csi0.window((min(csi0.width(), csi0.height() * width // height),
                 min(csi0.height(), csi0.width() * height // width)))
    csi0.snapshot(time=SETTLE_MS)

    clock = time.clock()
    while True:
        clock.tick()
        scores = model.predict([csi0.snapshot()])[0].flatten().tolist()
        if len(scores) < len(labels):  # one sigmoid for two labels
            scores = [1 - scores[0], scores[0]]
        best = sorted(zip(scores, labels), reverse=True)[:TOP]
        print(", ".join("%s %.2f" % (label, score) for score, label in best),
              "| %.1f fps" % clock.fps())
except (OSError, MemoryError, ValueError, RuntimeError, AttributeError) as error:
    gc.collect()
    sys.print_exception(error)
    stop("the camera stopped: %s" % error,
         advice_for(error, "Reset the camera. If it stops again, check its sensor."))
