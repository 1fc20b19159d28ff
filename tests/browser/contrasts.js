// How legible all text within some elements is: [selector, limit] -> how many texts, the least contrast (WCAG 2), and the texts below the limit.
// Under a text of HTML lie the grounds of the elements around it; under a text of a picture, the filled shapes painted before it.
([within, limit]) => {
    const pen = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const parse = (colour) => {  // any CSS colour -> red, green, blue, alpha in [0, 1]
        if (!known.has(colour)) {
            pen.clearRect(0, 0, 1, 1);
            pen.fillStyle = colour;
            pen.fillRect(0, 0, 1, 1);
            known.set(colour, [...pen.getImageData(0, 0, 1, 1).data].map((v) => v / 255));
        }
        return known.get(colour);
    };
    const over = (top, below, opacity = 1) => below.slice(0, 3).map((v, i) => v + (top[i] - v) * top[3] * opacity);
    const light = (c) => c.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const probe = document.documentElement.appendChild(document.createElement('i'));
    probe.style.color = 'Canvas';  // the browser's own ground
    const canvas = parse(getComputedStyle(probe).color).slice(0, 3);
    probe.remove();
    const grounds = new Map();
    const groundOf = (element) => {
        if (!element) return canvas;
        if (grounds.has(element)) return grounds.get(element);
        const ground = over(parse(getComputedStyle(element).backgroundColor), groundOf(element.parentElement));
        grounds.set(element, ground);
        return ground;
    };
    const shapes = new Map();
    const shapesOf = (svg) => {
        if (!shapes.has(svg)) shapes.set(svg, [...svg.querySelectorAll('rect, polygon, path')].map((shape) => {
            const style = getComputedStyle(shape);
            return {shape, fill: style.fill, opacity: Number(style.fillOpacity), at: shape.getBoundingClientRect()};
        }).filter(({fill}) => fill !== 'none'));
        return shapes.get(svg);
    };
    const inPicture = (text) => {
        const box = text.getBoundingClientRect(), y = (box.top + box.bottom) / 2;
        return [box.left + 1, (box.left + box.right) / 2, box.right - 1].map((x) => {
            let ground = groundOf(text.ownerSVGElement);
            for (const {shape, fill, opacity, at} of shapesOf(text.ownerSVGElement)) {
                const before = shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
                const under = at.left <= x && x <= at.right && at.top <= y && y <= at.bottom;
                if (before && under) ground = over(parse(fill), ground, opacity);
            }
            return ground;
        });
    };
    const low = [];
    let [texts, least] = [0, 21];
    for (const root of document.querySelectorAll(within)) {
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const element = walk.currentNode.parentElement;
            const words = walk.currentNode.data.trim().slice(0, 60);
            if (!words || ['style', 'script', 'title'].includes(element.localName) || !element.checkVisibility()) continue;
            const style = getComputedStyle(element), picture = element.localName === 'text';
            for (const ground of picture ? inPicture(element) : [groundOf(element)]) {
                const pair = [light(over(parse(picture ? style.fill : style.color), ground)), light(ground)];
                const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
                least = Math.min(least, contrast);
                if (contrast < limit && !element.closest(':disabled')) low.push(`${contrast.toFixed(2)}: ${words}`);
            }
            texts += 1;
        }
    }
    return {texts, least, low};
}
