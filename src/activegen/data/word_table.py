"""Words of common classes where WordNet is not installed: a small table, our own selection.

The classes of PASCAL VOC, Cityscapes and ImageNet-S-50, and those of land cover. Of the latter it
holds what the embedded generator was taught; a kind that it never heard of would draw something
else. No word stands for two classes of one list.
"""

from dataclasses import dataclass

from activegen.data.wording import readable


@dataclass(frozen=True)
class Entry:
    """A class.

    Args:
        sense: WordNet's synset of it; "" where it has none.
        synonyms, kinds: with an article where one is said.
    """

    sense: str = ""
    synonyms: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


VOC: dict[str, Entry] = {
    "aeroplane": Entry(
        "airplane.n.01",
        ("an aeroplane", "an airplane", "a plane"),
        ("an airliner", "a jet", "a biplane", "a seaplane", "a fighter jet"),
    ),
    "bicycle": Entry(
        "bicycle.n.01",
        ("a pushbike",),
        ("a mountain bike", "a racing bicycle", "a tandem bicycle", "a city bicycle"),
    ),
    "bird": Entry(
        "bird.n.01",
        (),
        ("a sparrow", "an eagle", "a duck", "a swan", "a parrot", "an owl", "a pigeon", "a gull"),
    ),
    "boat": Entry(
        "boat.n.01",
        (),
        ("a sailboat", "a rowboat", "a motorboat", "a canoe", "a ferry", "a yacht", "a kayak"),
    ),
    "bottle": Entry(
        "bottle.n.01",
        (),
        ("a wine bottle", "a beer bottle", "a water bottle", "a milk bottle", "a flask"),
    ),
    "bus": Entry(
        "bus.n.01",
        ("a motorbus", "an autobus"),
        ("a minibus", "a school bus", "a trolleybus", "a double-decker bus"),
    ),
    "car": Entry(
        "car.n.01",
        ("an automobile", "a motorcar"),
        ("a sedan", "a hatchback", "a station wagon", "a sports car", "a limousine", "a taxi"),
    ),
    "cat": Entry(
        "cat.n.01",
        ("a house cat",),
        ("a kitten", "a tabby", "a tomcat", "a Siamese cat", "a Persian cat"),
    ),
    "chair": Entry(
        "chair.n.01",
        (),
        ("an armchair", "a rocking chair", "a folding chair", "a swivel chair", "a highchair"),
    ),
    "cow": Entry("cattle.n.01", ("cattle",), ("a heifer", "a dairy cow", "an ox", "a bull")),
    "dining table": Entry("dining_table.n.01", ("a dinner table",), ("a refectory table",)),
    "dog": Entry(
        "dog.n.01",
        ("a domestic dog",),
        ("a puppy", "a poodle", "a corgi", "a terrier", "a spaniel", "a husky", "a bulldog"),
    ),
    "horse": Entry("horse.n.01", (), ("a pony", "a stallion", "a mare", "a foal", "a racehorse")),
    "motorbike": Entry(
        "motorcycle.n.01",
        ("a motorcycle", "a motorbike"),
        ("a moped", "a motor scooter", "a trail bike"),
    ),
    "person": Entry(
        "person.n.01",
        ("a human being",),
        ("a man", "a woman", "a child", "a boy", "a girl", "a worker", "a tourist"),
    ),
    "potted plant": Entry(
        "pot_plant.n.01",
        ("a pot plant", "a houseplant"),
        ("a potted fern", "a potted palm", "a potted flower", "a bonsai"),
    ),
    "sheep": Entry("sheep.n.01", (), ("a lamb", "a ewe", "a merino", "a bighorn")),
    "sofa": Entry(
        "sofa.n.01", ("a sofa", "a couch"), ("a loveseat", "a sofa bed", "a settee", "a divan")
    ),
    "train": Entry(
        "train.n.01",
        ("a railroad train",),
        ("a passenger train", "a freight train", "a commuter train", "a subway train"),
    ),
    "tv monitor": Entry(
        "television_monitor.n.01",
        ("a television", "a television set"),
        ("a computer monitor", "a flat-screen television"),
    ),
}

STREETS: dict[str, Entry] = {
    "road": Entry(
        "road.n.01", ("a roadway", "a street"), ("a highway", "a motorway", "an unpaved road")
    ),
    "sidewalk": Entry("sidewalk.n.01", ("a pavement", "a footway"), ("a paved footpath",)),
    "building": Entry(
        "building.n.01",
        ("an edifice",),
        ("a house", "an apartment building", "an office building", "a skyscraper", "a church"),
    ),
    "wall": Entry("wall.n.01", (), ("a brick wall", "a stone wall", "a concrete wall")),
    "fence": Entry("fence.n.01", (), ("a picket fence", "a wire fence", "a wooden fence")),
    "pole": Entry("pole.n.01", (), ("a utility pole", "a telephone pole", "a lamppost")),
    "traffic light": Entry(
        "traffic_light.n.01", ("a traffic signal", "a stoplight"), ("a pedestrian signal",)
    ),
    "traffic sign": Entry(
        "street_sign.n.01", ("a street sign",), ("a stop sign", "a yield sign", "a warning sign")
    ),
    "vegetation": Entry(
        "vegetation.n.01", ("plants", "flora"), ("trees", "bushes", "shrubbery", "a hedge")
    ),
    "terrain": Entry("terrain.n.01", ("open ground",), ("grass", "soil", "sand", "a lawn")),
    "sky": Entry("sky.n.01", (), ("a blue sky", "a cloudy sky", "an overcast sky")),
    "rider": Entry("rider.n.03", (), ("a cyclist", "a bicyclist", "a motorcyclist")),
    "truck": Entry(
        "truck.n.01",
        ("a lorry", "a motortruck"),
        ("a pickup truck", "a dump truck", "a fire engine", "a delivery truck", "a tow truck"),
    ),
}

# of ImageNet-S-50; "dining table" is one of VOC
IMAGENET_S: dict[str, Entry] = {
    "goldfish": Entry(
        "goldfish.n.01",
        (),
        ("a comet goldfish", "a fantail goldfish", "a black telescope goldfish"),
    ),
    "tiger shark": Entry("tiger_shark.n.01", (), ("a young tiger shark", "a swimming tiger shark")),
    "goldfinch": Entry(
        "goldfinch.n.02", ("a European goldfinch",), ("a male goldfinch", "a young goldfinch")
    ),
    "tree frog": Entry(
        "tree_toad.n.01",
        ("a tree toad",),
        ("a red-eyed tree frog", "a European tree frog", "a spring peeper"),
    ),
    "kuvasz": Entry("kuvasz.n.01", ("a Hungarian kuvasz",), ("a kuvasz puppy",)),
    "red fox": Entry("red_fox.n.03", (), ("a silver fox", "a red fox cub", "a vixen")),
    "siamese cat": Entry(
        "siamese_cat.n.01",
        ("a Siamese",),
        ("a blue point Siamese", "a seal point Siamese", "a Siamese kitten"),
    ),
    "american black bear": Entry(
        "american_black_bear.n.01", ("a black bear",), ("a cinnamon bear", "a black bear cub")
    ),
    "ladybug": Entry(
        "ladybug.n.01",
        ("a ladybird", "a lady beetle"),
        ("a two-spotted ladybug", "a seven-spotted ladybug"),
    ),
    "sulphur butterfly": Entry(
        "sulphur_butterfly.n.01",
        ("a sulfur butterfly",),
        ("a clouded sulphur", "an orange sulphur"),
    ),
    "wood rabbit": Entry(
        "wood_rabbit.n.01",
        ("a cottontail", "a cottontail rabbit"),
        ("an eastern cottontail", "a swamp rabbit"),
    ),
    "hamster": Entry(
        "hamster.n.01", (), ("a golden hamster", "a dwarf hamster", "a Syrian hamster")
    ),
    "wild boar": Entry(
        "wild_boar.n.01", (), ("a wild sow", "a wild boar piglet", "a tusked wild boar")
    ),
    "gibbon": Entry("gibbon.n.02", (), ("a lar gibbon", "a white-handed gibbon", "a siamang")),
    "african elephant": Entry(
        "african_elephant.n.01", (), ("an African bush elephant", "an African forest elephant")
    ),
    "giant panda": Entry("giant_panda.n.01", ("a panda", "a panda bear"), ("a panda cub",)),
    "airliner": Entry(
        "airliner.n.01", (), ("a passenger jet", "a wide-body airliner", "a jumbo jet")
    ),
    "ashcan": Entry(
        "ashcan.n.01",
        ("a trash can", "a garbage can", "a dustbin"),
        ("a wheelie bin", "a metal trash can"),
    ),
    "ballpoint": Entry(
        "ballpoint.n.01", ("a ballpoint pen", "a Biro"), ("a retractable ballpoint pen",)
    ),
    "beach wagon": Entry(
        "beach_wagon.n.01",
        ("a station wagon", "an estate car"),
        ("a shooting brake", "a wood-panelled station wagon"),
    ),
    "boathouse": Entry("boathouse.n.01", (), ("a wooden boathouse", "a lakeside boathouse")),
    "bullet train": Entry("bullet_train.n.01", (), ("a Shinkansen", "a high-speed train")),
    "cellular telephone": Entry(
        "cellular_telephone.n.01",
        ("a mobile phone", "a cellphone"),
        ("a smartphone", "a flip phone"),
    ),
    "chest": Entry(
        "chest.n.02", (), ("a treasure chest", "a cedar chest", "a sea chest", "a toy chest")
    ),
    "clog": Entry("clog.n.01", ("a sabot",), ("a wooden clog", "a Dutch clog")),
    "container ship": Entry(
        "container_ship.n.01",
        ("a container vessel",),
        ("a loaded container ship", "a feeder container ship"),
    ),
    "digital watch": Entry(
        "digital_watch.n.01", (), ("an LCD wristwatch", "a digital sports watch")
    ),
    "golf ball": Entry("golf_ball.n.01", (), ("a white golf ball", "a dimpled golf ball")),
    "grand piano": Entry("grand_piano.n.01", (), ("a baby grand", "a concert grand")),
    "iron": Entry(
        "iron.n.04",
        ("a smoothing iron", "a clothes iron"),
        ("a steam iron", "a travel iron", "a flatiron"),
    ),
    "lab coat": Entry(
        "lab_coat.n.01", ("a laboratory coat",), ("a white lab coat", "a doctor's white coat")
    ),
    "mixing bowl": Entry(
        "mixing_bowl.n.01",
        (),
        ("a steel mixing bowl", "a ceramic mixing bowl", "a glass mixing bowl"),
    ),
    "motor scooter": Entry("motor_scooter.n.01", (), ("a Vespa", "an electric motor scooter")),
    "padlock": Entry("padlock.n.01", (), ("a combination padlock", "a brass padlock")),
    "park bench": Entry("park_bench.n.01", (), ("a wooden park bench", "an empty park bench")),
    "purse": Entry(
        "bag.n.04",
        ("a handbag", "a pocketbook"),
        ("a shoulder bag", "a clutch bag", "an evening bag"),
    ),
    "streetcar": Entry(
        "streetcar.n.01", ("a tram", "a trolley car"), ("a horsecar", "a low-floor tram")
    ),
    "table lamp": Entry("table_lamp.n.01", (), ("a bedside lamp", "a desk lamp")),
    "television": Entry(
        "television_receiver.n.01",
        ("a television set", "a TV set"),
        ("a flat-screen television", "a tube television"),
    ),
    "toilet seat": Entry("toilet_seat.n.01", (), ("a wooden toilet seat", "a plastic toilet seat")),
    "umbrella": Entry("umbrella.n.01", (), ("a parasol", "a folding umbrella", "a beach umbrella")),
    "vase": Entry("vase.n.01", (), ("a flower vase", "a porcelain vase", "an urn")),
    "water bottle": Entry(
        "water_bottle.n.01", (), ("a plastic water bottle", "a sports bottle", "a canteen")
    ),
    "water tower": Entry("water_tower.n.01", (), ("a steel water tower", "a brick water tower")),
    "yawl": Entry("yawl.n.02", (), ("a sailing yawl", "a two-masted yawl")),
    "street sign": Entry("street_sign.n.01", ("a street name sign",), ("a corner street sign",)),
    "lemon": Entry("lemon.n.01", (), ("a Meyer lemon", "a sliced lemon", "a ripe lemon")),
    "carbonara": Entry(
        "carbonara.n.01", ("spaghetti carbonara",), ("pasta carbonara", "rigatoni alla carbonara")
    ),
    "agaric": Entry(
        "agaric.n.02",
        ("a gilled mushroom",),
        ("a fly agaric", "an oyster mushroom", "a meadow mushroom"),
    ),
}

LAND_COVER: dict[str, Entry] = {
    "field": Entry("field.n.01", ("farmland", "a crop field"), ("a ploughed field",)),
    "meadow": Entry(
        "grassland.n.01", ("grassland", "a pasture"), ("a flowered meadow", "a plain meadow")
    ),
    "forest": Entry(
        "forest.n.01", ("woodland", "woods"), ("a broadleaf forest", "a conifer forest")
    ),
    "lake": Entry("lake.n.01", ("a pond", "a water reservoir"), ("a blue lake", "a frozen lake")),
    "river": Entry(
        "river.n.01",
        ("a stream", "a watercourse"),
        ("a straight river", "a meandering river", "a braided river"),
    ),
    "water": Entry(
        "body_of_water.n.01", ("open water", "a body of water"), ("a lake", "a river", "a pond")
    ),
    "houses": Entry(
        "house.n.01", ("a residential area", "housing"), ("suburban houses", "rural houses")
    ),
    "industry": Entry("factory.n.01", ("an industrial site", "a factory area"), ()),
    "annual crop": Entry("", ("annual crops", "cropland"), ()),
    "herbaceous vegetation": Entry("", ("scrub",), ()),
    "highway": Entry("highway.n.01", ("a motorway",), ()),
    "industrial": Entry("", ("industrial buildings", "an industrial area"), ()),
    "pasture": Entry("pasture.n.01", ("grazing land",), ()),
    "permanent crop": Entry("", ("permanent crops", "an orchard"), ()),
    "residential": Entry("", ("a residential area", "a suburb"), ()),
    "sea lake": Entry("", ("a lake", "the sea"), ()),
}

TABLE: dict[str, Entry] = {**VOC, **STREETS, **IMAGENET_S, **LAND_COVER}
OTHER_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dinner table": "dining table",
    "motorcycle": "motorbike",
    "tv": "tv monitor",
}


def entry(name: str) -> Entry | None:
    """Of a class, however its name is written ("diningtable"); None where we have none."""
    return _BY_NAME.get(_squeezed(name))


def of_sense(sense: str) -> Entry | None:
    """The class of a synset; None where we have none."""
    return next((of for of in TABLE.values() if of.sense and of.sense == sense), None)


def _squeezed(name: str) -> str:
    return readable(name).replace(" ", "")


_BY_NAME = {
    **{_squeezed(name): of for name, of in TABLE.items()},
    **{_squeezed(other): TABLE[name] for other, name in OTHER_NAMES.items()},
}
