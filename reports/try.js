// The page on which a reader tries the network: a picture, a square on it, and what the network says of what is in it.
// Everything is computed here. network.js (the runtime, NETWORK) is loaded with the first picture.
(() => {
  const HERE = document.currentScript.src;
  const SIDE = 48; // of a face, in pixels
  const LONGEST = 2000; // of a square, to whose area larger pictures are shrunk
  const SEEN = 640; // the detector's side

  // --- pictures ----------------------------------------------------------------------------

  // A picture on the canvas, upright, white where it is transparent; its grey levels are given.
  async function drawPicture(source, canvas) {
    const bitmap = await createImageBitmap(source).catch(() => {
      throw new Error("This browser cannot read that file as a picture. Save it as JPEG or PNG and choose that.");
    });
    const scale = Math.min(1, LONGEST / Math.sqrt(bitmap.width * bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale)));
    if (Math.min(width, height) < SIDE)
      throw new Error(`The picture has ${width}×${height} pixels; at least ${SIDE}×${SIDE} are needed.`);
    Object.assign(canvas, { width, height });
    const grey = readGrey(canvas, bitmap, width, height);
    bitmap.close();
    return { grey, width, height };
  }

  // Draw an image at a size, and give the canvas's grey levels by ITU-R 601, rounded as Pillow does.
  function readGrey(canvas, image, width, height) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const grey = new Uint8Array(data.length / 4);
    for (let i = 0; i < grey.length; i++)
      grey[i] = (19595 * data[4 * i] + 38470 * data[4 * i + 1] + 7471 * data[4 * i + 2] + 32768) >> 16;
    return grey;
  }

  // For each of 48 pixels, which of the pixels of a longer or shorter line it is made of: [place, weight], ...
  function weighPixels(length) {
    const scale = length / SIDE;
    return Array.from({ length: SIDE }, (_, pixel) => {
      if (length > SIDE) {
        const [start, end] = [pixel * scale, (pixel + 1) * scale];
        const count = Math.min(Math.ceil(end), length) - Math.floor(start);
        const places = Array.from({ length: count }, (_, i) => Math.floor(start) + i);
        return places.map((place) => [place, (Math.min(place + 1, end) - Math.max(place, start)) / scale]);
      }
      const centre = (pixel + 0.5) * scale - 0.5;
      return [-1, 0, 1, 2].map((step) => {
        const place = Math.floor(centre) + step;
        return [Math.min(Math.max(place, 0), length - 1), weighCubic(Math.abs(centre - place))];
      });
    });
  }

  // Keys' kernel with OpenCV's -0.75.
  function weighCubic(away) {
    if (away <= 1) return (1.25 * away - 2.25) * away * away + 1;
    return away < 2 ? ((-0.75 * away + 3.75) * away - 6) * away + 3 : 0;
  }

  // What is in the square, at 48×48 pixels.
  function cutFace({ grey, width }, { left, top, side }) {
    const ways = weighPixels(side);
    const lines = new Float32Array(SIDE * side);
    const face = new Uint8ClampedArray(SIDE * SIDE);
    ways.forEach((way, y) => {
      for (const [place, weight] of way)
        for (let x = 0; x < side; x++) lines[y * side + x] += weight * grey[(top + place) * width + left + x];
      ways.forEach((way, x) => {
        face[y * SIDE + x] = way.reduce((sum, [place, weight]) => sum + weight * lines[y * side + place], 0);
      });
    });
    return face;
  }

  // --- networks ----------------------------------------------------------------------------

  let loading = null;

  // The two networks, ready to run; a second call gives the same.
  function loadNetworks() {
    loading ??= startNetworks().catch((error) => {
      loading = null; // so that the next picture tries again
      throw new Error(`The network could not be loaded: ${error.message}`);
    });
    return loading;
  }

  async function startNetworks() {
    await new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src: new URL("network.js", HERE).href });
      script.onload = resolve;
      script.onerror = () => reject(new Error("network.js is not beside this page's scripts."));
      document.head.append(script);
    });
    const [module, wasm, model, detector] = await Promise.all(
      ["module", "wasm", "model", "detector"].map((name) => unpack(NETWORK[name])),
    );
    delete globalThis.NETWORK;
    ort.env.wasm.numThreads = 1; // more need a server's consent
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([module], { type: "text/javascript" })) };
    return {
      judge: await ort.InferenceSession.create(model),
      detector: await ort.InferenceSession.create(detector),
    };
  }

  // Bytes from gzipped ones in base64.
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  async function judgeFace(face) {
    const { judge } = await loadNetworks();
    const answer = await judge.run({ faces: new ort.Tensor("uint8", Uint8Array.from(face), [1, SIDE, SIDE]) });
    return [...answer.probabilities.data];
  }

  // --- faces -------------------------------------------------------------------------------

  // The square on the largest face of a picture, or null. As find_faces of fer_lib/extras/detect.py.
  async function findFace(canvas) {
    const whole = Math.min(4, SEEN / Math.max(canvas.width, canvas.height));
    const found = [...(await detectFaces(canvas, whole)), ...(await detectFaces(canvas, whole / 4))];
    const kept = []; // of boxes on one face the likeliest
    for (const box of found.sort((a, b) => b.score - a.score))
      if (!kept.some((one) => overlap(one, box) > 0.3)) kept.push(box);
    if (!kept.length) return null;
    const { left, top, width, height } = kept.reduce((a, b) => (a.height >= b.height ? a : b));
    return { left: left + (width - height) / 2, top, side: height };
  }

  // The boxes that YuNet gives to a picture at a scale, of faces or parts of them, in the picture's pixels.
  async function detectFaces(canvas, scale) {
    const { detector } = await loadNetworks();
    const small = Object.assign(document.createElement("canvas"), { width: SEEN, height: SEEN });
    const [width, height] = [canvas.width, canvas.height].map((side) => Math.max(1, Math.round(side * scale)));
    const grey = readGrey(small, canvas, width, height); // what is beyond is 0, as where the canvas is empty
    const input = new Float32Array(3 * grey.length);
    for (const colour of [0, 1, 2]) input.set(grey, colour * grey.length);
    const maps = await detector.run({ input: new ort.Tensor("float32", input, [1, 3, SEEN, SEEN]) });
    return [8, 16, 32].flatMap((stride) => {
      const [classes, objects, boxes] = ["cls", "obj", "bbox"].map((name) => maps[`${name}_${stride}`].data);
      const likely = Array.from(classes, (share, i) => [i, Math.sqrt(share * objects[i])]);
      return likely.filter(([, score]) => score >= 0.6).map(([i, score]) => {
        const [x, y, w, h] = boxes.slice(4 * i, 4 * i + 4);
        const [width, height] = [w, h].map((log) => (Math.exp(log) * stride) / scale);
        const [column, row] = [i % (SEEN / stride), Math.floor(i / (SEEN / stride))];
        const [left, top] = [((column + x) * stride) / scale - width / 2, ((row + y) * stride) / scale - height / 2];
        return { left, top, width, height, score };
      });
    });
  }

  // The share of two boxes that both have, 0-1.
  function overlap(a, b) {
    const width = Math.min(a.left + a.width, b.left + b.width) - Math.max(a.left, b.left);
    const height = Math.min(a.top + a.height, b.top + b.height) - Math.max(a.top, b.top);
    const both = Math.max(0, width) * Math.max(0, height);
    return both / (a.width * a.height + b.width * b.height - both);
  }

  // --- the page ----------------------------------------------------------------------------

  addEventListener("DOMContentLoaded", () => {
    const all = document.querySelector("#try");
    if (!all) return; // what it needs was missing
    const find = (name) => all.querySelector(`.${name}`);
    const [whole, frame, input] = [find("whole"), find("square"), all.querySelector("input")];
    let picture, square, changed, busy;
    let chosen = 0; // pictures so far: only the last one is shown

    function tell(text, wrong = false) {
      find("status").textContent = text;
      find("status").classList.toggle("wrong", wrong);
    }

    // Show a picture, and answer; a drawn face is a face as a whole.
    async function take(source, isFace) {
      const turn = ++chosen;
      clearAnswer();
      try {
        const canvas = document.createElement("canvas");
        const drawn = await drawPicture(source, canvas);
        if (turn !== chosen) return;
        picture = drawn;
        Object.assign(whole, { width: picture.width, height: picture.height }).getContext("2d").drawImage(canvas, 0, 0);
        find("shown").hidden = false;
        const side = Math.min(picture.width, picture.height);
        place({ left: (picture.width - side) / 2, top: (picture.height - side) / 2, side });
        tell("Loading the network …");
        await loadNetworks();
        const face = isFace ? null : await findFace(canvas);
        if (turn !== chosen) return;
        if (face) place(face);
        if (isFace) tell("");
        else tell(face ? "The square is on the largest face that was found." : "No face was found: put the square on it.");
        if (isFace || face) await answer(); // else nothing is said until the reader has put it there
      } catch (error) {
        if (turn !== chosen) return;
        find("shown").hidden = true;
        tell(error.message, true);
      }
    }

    // Put the square there, within the picture, in whole pixels.
    function place({ left, top, side }) {
      const within = (value, least, most) => Math.min(Math.max(Math.round(value), least), most);
      side = within(side, Math.min(SIDE / 2, picture.width, picture.height), Math.min(picture.width, picture.height));
      left = within(left, 0, picture.width - side);
      top = within(top, 0, picture.height - side);
      square = { left, top, side };
      changed = true;
      frame.style.left = `${(100 * left) / picture.width}%`;
      frame.style.top = `${(100 * top) / picture.height}%`;
      frame.style.width = `${(100 * side) / picture.width}%`;
      Object.assign(frame.dataset, square);
      showCut();
    }

    function showCut() {
      const face = cutFace(picture, square);
      const shown = new ImageData(SIDE, SIDE);
      face.forEach((level, i) => shown.data.set([level, level, level, 255], 4 * i));
      find("cut").getContext("2d").putImageData(shown, 0, 0);
      return face;
    }

    // Ask the network about the square; if it is moved meanwhile, once more.
    async function answer() {
      if (busy) return;
      busy = true;
      try {
        while (changed) {
          changed = false;
          const shares = await judgeFace(cutFace(picture, square));
          if (!changed) showAnswer(shares);
          await new Promise(requestAnimationFrame);
        }
      } finally {
        busy = false;
      }
    }

    function showAnswer(shares) {
      const rows = [...all.querySelectorAll(".shares tr")];
      const names = rows.map((row) => row.querySelector("th").textContent);
      const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
      const [first, second] = order.map((i) => `${names[i]}, ${Math.round(100 * shares[i])}%`);
      find("said").innerHTML = `<strong>${first}</strong>, then ${second}`;
      rows.forEach((row, i) => {
        row.classList.toggle("first", i === order[0]);
        row.dataset.probability = shares[i];
        row.querySelector(".bar span").style.width = `${100 * shares[i]}%`;
        row.querySelector(".share").textContent = `${Math.round(100 * shares[i])}%`;
      });
    }

    function clearAnswer() {
      find("said").textContent = "";
      for (const row of all.querySelectorAll(".shares tr")) {
        row.classList.remove("first");
        delete row.dataset.probability;
        row.querySelector(".bar span").style.width = 0;
        row.querySelector(".share").textContent = "";
      }
    }

    function move(to) {
      place(to);
      answer().catch((error) => tell(error.message, true));
    }

    // --- what the reader does

    for (const button of all.querySelectorAll(".faces button"))
      button.addEventListener("click", () => take(button.querySelector("img"), true));
    input.addEventListener("change", () => {
      if (input.files.length) take(input.files[0], false);
      input.value = ""; // so that the same can be chosen again
    });
    all.addEventListener("dragover", (event) => event.preventDefault());
    all.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) take(event.dataTransfer.files[0], false);
    });
    frame.addEventListener("pointerdown", (event) => {
      frame.setPointerCapture(event.pointerId);
      const [start, x, y] = [square, event.clientX, event.clientY];
      const scale = picture.width / whole.getBoundingClientRect().width;
      const resize = event.target !== frame;
      frame.onpointermove = (event) => {
        const [right, down] = [(event.clientX - x) * scale, (event.clientY - y) * scale];
        const most = Math.min(picture.width - start.left, picture.height - start.top);
        if (resize) move({ ...start, side: Math.min(most, start.side + (right + down) / 2) });
        else move({ ...start, left: start.left + right, top: start.top + down });
      };
    });
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (frame.onpointermove = null));
    whole.addEventListener("click", (event) => {
      const box = whole.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((at) => (at * picture.width) / box.width);
      move({ ...square, left: x - square.side / 2, top: y - square.side / 2 });
    });
    frame.addEventListener("keydown", (event) => {
      const { left, top, side } = square;
      const step = Math.max(1, Math.round(side / 20));
      const to = {
        ArrowLeft: { left: left - step, top, side },
        ArrowRight: { left: left + step, top, side },
        ArrowUp: { left, top: top - step, side },
        ArrowDown: { left, top: top + step, side },
        "+": { left: left - step, top: top - step, side: side + 2 * step },
        "-": { left: left + step, top: top + step, side: side - 2 * step },
      }[event.key];
      if (!to) return;
      event.preventDefault();
      move(to);
    });
  });
})();
