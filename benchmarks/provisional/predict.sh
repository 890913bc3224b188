#!/usr/bin/env bash
# What the provisional models say about sentences written for this run; to be started in the work folder of run.sh.
set -euo pipefail
say() { echo "\$ affinage predict ${*@Q}"; affinage predict "$@" --quiet; echo; }
say student-sentiment "Une cave sombre, un fromage sublime : nous reviendrons." "Service lent, plats froids, addition salée."
say student-ner "Claire Dumont a quitté Lyon pour diriger une fromagerie à Poligny."
say student-nli "Le train de Bordeaux est arrivé avec deux heures de retard." --hypothesis "Le train était à l'heure."
say student-nli "Le boulanger a gagné le concours régional." --labels cuisine,sport,politique
say student-qa --question "Où Claire travaille-t-elle ?" --context "Claire travaille dans une petite fromagerie du Jura depuis 2019."
say teacher "Le <mask> est affiné pendant douze mois."
say student "Il habite à <mask> depuis dix ans."
