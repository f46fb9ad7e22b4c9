# Says what the camera sees. For OpenMV firmware 5.0.0; written by keras_omv.
# Copy main.py, model.tflite and labels.txt to the camera's USB drive, eject it, reset.
import gc
import os
import sys
import time

MODEL = "model.tflite"
LABELS = "labels.txt"  # one label a line, in the order of the model's outputs
FOLDERS = ("/rom", os.getcwd())  # where to look for them, in this order
TOP = 3  # labels to print for each picture
SETTLE_MS = 2000  # time for the camera to find its exposure

COPY = ("Copy main.py, %s and %s to the camera's USB drive, eject it and reset the "
        "camera." % (MODEL, LABELS))
REFILL = ("Add %s and %s again with OpenMV IDE: Tools, ROM File System."
          % (MODEL, LABELS))
SHRINK = ("Put it into /rom, where its weights take no RAM (OpenMV IDE: Tools, ROM "
          "File System), or use a smaller one: lower alpha or resolution.")
ADVICE = (  # what to do, by what is in the firmware's error
    ("llocate", "The model needs more RAM than this camera has in one piece, or an "
     "operation that this firmware lacks. " + SHRINK),
    ("schema", "The file is damaged or no .tflite model. " + COPY),
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


def load_model(path):
    return ml.Model(path)


def input_size(model):
    height, width, channels = model.input_shape[0][1:]
    return width, height, channels


def classify(model, picture):
    return model.predict([picture])[0].flatten().tolist()


def one_for_each(labels, scores):
    if len(scores) == 1 and len(labels) == 2:  # one sigmoid for two labels
        return [1 - scores[0], scores[0]]
    if len(scores) != len(labels):
        stop("%s has %d labels, the model has %d outputs"
             % (LABELS, len(labels), len(scores)),
             "Copy %s and %s from the same folder." % (MODEL, LABELS))
    return scores


def window(frame_width, frame_height, width, height):
    # The middle part that has the model's shape: the firmware then only scales it.
    # Other shapes are cropped by some releases and stretched by others.
    x = y = 0
    part_width = min(frame_width, frame_height * width // height)
    part_height = min(frame_height, frame_width * height // width)
    x += (frame_width - part_width) // 2
    y += (frame_height - part_height) // 2
    return x, y, part_width, part_height


def start_camera(width, height, channels):
    camera = csi.CSI()
    camera.reset()
    camera.pixformat(csi.RGB565 if channels == 3 else csi.GRAYSCALE)
    camera.framesize(csi.QVGA)  # 320x240
    camera.window(window(camera.width(), camera.height(), width, height))
    camera.snapshot(time=SETTLE_MS)
    return camera


try:
    import csi
    import ml
    csi.CSI, ml.Model  # what other releases lack
except (ImportError, AttributeError) as error:
    stop("this main.py is for firmware 5.0.0: %s" % error,
         "Update the camera with OpenMV IDE (press Connect), or export for the "
         "firmware that it has.")

# The model comes first: the camera's frame buffers take what memory it leaves.
gc.collect()
print("Free heap: %d bytes" % gc.mem_free())
folder = find_folder()
labels = load(read_labels, folder + "/" + LABELS)
model = load(load_model, folder + "/" + MODEL)
gc.collect()
print("The model takes %d bytes of RAM. Free heap: %d bytes"
      % (model.ram, gc.mem_free()))

try:
    camera = start_camera(*input_size(model))
    clock = time.clock()
    while True:
        clock.tick()
        picture = camera.snapshot()
        scores = one_for_each(labels, classify(model, picture))
        best = sorted(zip(scores, labels), reverse=True)[:TOP]
        text = ", ".join("%s %.2f" % (name, score) for score, name in best)
        print("%s | %.1f fps" % (text, clock.fps()))
except (OSError, MemoryError, ValueError, RuntimeError, AttributeError) as error:
    gc.collect()
    sys.print_exception(error)
    stop("the camera stopped: %s" % error,
         advice_for(error, "Reset the camera. If it stops again, check its sensor."))
