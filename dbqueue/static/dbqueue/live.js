// Keeps a page up to date, part by part. Without it the page shows the moment at which it was loaded.
"use strict";

{
    const TOKEN = "input[name=csrfmiddlewaretoken]";
    const SOON = [300, 1000, 2000]; // ms; a short job has ended before anybody waits for the first of the regular looks

    const start = () => {
        const live = document.getElementById("dbqueue-live");
        const said = document.getElementById("dbqueue-said");
        const button = document.getElementById("dbqueue-pause");
        if (!live || !said || !button) {
            return;
        }
        const every = 1000 * Number(live.dataset.every);
        if (!every) {
            return;
        }
        const soon = "soon" in live.dataset ? [...SOON] : [];
        const goOn = button.dataset.paused;
        const pause = button.textContent;
        let paused = false;
        let ended = false;

        const rests = () => paused || ended || document.hidden || live.contains(document.activeElement);

        const end = (why) => {
            ended = true;
            said.textContent = why;
            button.hidden = true;
        };

        // Only what has changed is replaced: a figure that stays keeps its place, its focus, and what is open in it.
        const patch = (html) => {
            const fresh = new DOMParser().parseFromString(html, "text/html");
            const token = document.querySelector(TOKEN)?.value;
            for (const input of fresh.querySelectorAll(TOKEN)) {
                input.setAttribute("value", token ?? input.value); // each page has it in another form
            }
            for (const part of live.querySelectorAll("[data-part]")) {
                const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
                if (!next) {
                    continue;
                }
                for (const details of part.querySelectorAll("details[id]")) {
                    fresh.getElementById(details.id)?.toggleAttribute("open", details.open);
                }
                if (next.outerHTML !== part.outerHTML) {
                    part.replaceWith(document.importNode(next, true));
                }
            }
            const there = fresh.getElementById("dbqueue-live");
            if (there && !there.dataset.every) {
                end(""); // nothing more will happen to it
            }
        };

        const look = async () => {
            let response;
            try {
                response = await fetch(live.dataset.url, { credentials: "same-origin", redirect: "manual" });
            } catch {
                said.textContent = said.dataset.lost;
                return;
            }
            // A session that has ended is sent to the login.
            if (response.type === "opaqueredirect" || response.status === 403) {
                end(said.dataset.ended);
            } else if (response.ok) {
                const html = await response.text();
                said.textContent = "";
                if (!rests()) {
                    patch(html);
                }
            } else {
                said.textContent = said.dataset.lost;
            }
        };

        const repeat = async () => {
            if (!rests()) {
                await look();
            }
            if (!ended) {
                setTimeout(repeat, soon.shift() ?? every);
            }
        };

        button.hidden = false;
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () => {
            paused = !paused;
            button.textContent = paused ? goOn : pause;
            button.setAttribute("aria-pressed", String(paused));
        });
        setTimeout(repeat, soon.shift() ?? every);
    };

    if (document.readyState === "loading") {
        document.addEventListener("DOMContentLoaded", start);
    } else {
        start();
    }
}
